"""Every search method behind one signature: pixels → what it searches with → a Result."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from irgen.compute import Machine
from irgen.models.reader import Query
from irgen.search import beam, rank
from irgen.search.result import Result
from irgen.search.scan import scan
from irgen.search.trie import Trie

Encoded = tuple[Tensor, ...]


@dataclass(frozen=True)
class Method:
    """``encode`` turns pixels (Q, C, H, W) into what ``search`` takes; ``search(encoded, k)`` gives
    the best k; ``bytes_per_image`` is what the search keeps of each database image."""

    encode: Callable[[Tensor], Encoded]
    search: Callable[[Encoded, int], Result]
    bytes_per_image: float


@dataclass(frozen=True)
class Budget:
    """How wide generative search looks: ``beams`` W, and at most ``candidates`` images gathered."""

    beams: int
    candidates: int


def exact(encode: Callable[[Tensor], Tensor], database: Tensor, bytes_per_image: float) -> Method:
    """The exact scan by cosine of unit vectors ``database`` (N, D)."""

    def unit(pixels: Tensor) -> Encoded:
        return (torch.nn.functional.normalize(encode(pixels).float(), dim=-1),)

    return Method(unit, lambda encoded, k: scan(encoded[0], database, k), bytes_per_image)


def generative(
    models: tuple[Query, Callable[[Tensor], Tensor] | None],
    database: tuple[Trie, Tensor],
    budget: Budget,
    order: Callable[[rank.Candidates, Tensor, int], Result],
    machine: Machine,
) -> Method:
    """Beam search over the trie; ``order`` is ``rank.by_code`` or ``rank.by_cosine``.

    ``models`` = (retriever, the tuned embedding of pixels, or None where the retriever's summary is
    that embedding); ``database`` = (trie, tuned embeddings (N, D)).
    """
    (retriever, embed), (trie, embeddings) = models, database
    assert retriever.reader is not None, "a query is read from pixels"

    def encode(pixels: Tensor) -> Encoded:
        summary, tokens = retriever.read([pixels])
        return summary, tokens, summary if embed is None else embed(pixels)

    def search(encoded: Encoded, k: int) -> Result:
        summary, tokens, embedding = encoded
        with machine.precision():
            beams = beam.search(retriever.decoder, summary, tokens, trie, budget.beams)
        found = rank.gather(trie, beams, k, max(k, budget.candidates))
        return order(found, rank.similarity(found, embedding, embeddings), k)

    return Method(encode, search, (trie.nbytes + embeddings.nbytes) / len(embeddings))
