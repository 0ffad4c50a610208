"""Generative search at work: a decoder of the usual size with made-up weights, batches of queries,
and where the time of a search goes."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from irgen import params
from irgen.models.decoder import IdentifierDecoder, Shape
from irgen.search import beam, engine, rank
from irgen.search.decoder import Decoder
from irgen.search.engine import Hits, Options, QueryFeatures
from irgen.search.snapshot import Segment, Snapshot
from speed import published
from speed.stopwatch import Patience, Times

SUMMARY, TOKENS, TOKEN_WIDTH = 256, 49, 192  # S, P, T of a small vision transformer
WIDTH, LAYERS, HEADS = 256, 4, 4
SHARPNESS = 5.0  # by which the logits' random part is scaled, to the spread trained ones have
K = 10


def retriever(codes: Tensor, size: int, layers: int = LAYERS, seed: int = 0) -> IdentifierDecoder:
    """A decoder with random weights. Its biases are the logarithms of how often each entry of codes
    (N, M) occurs, so that beams go where images are, as a trained one's do."""
    torch.manual_seed(seed)
    usual = params.load(Path(__file__).parents[2] / "params.yaml").retriever
    settings = replace(usual, width=WIDTH, layers=layers, heads=HEADS, dropout=0.0)
    shape = Shape(
        summary_width=SUMMARY,
        token_width=TOKEN_WIDTH,
        token_count=TOKENS,
        levels=codes.shape[1],
        codebook=size,
    )
    model = IdentifierDecoder(settings, shape).eval().requires_grad_(False)
    model.output_weights *= SHARPNESS
    for level, column in enumerate(codes.T):
        counts = torch.bincount(column.long(), minlength=size) + 1
        model.output_biases[level] = (counts / counts.sum()).log()
    return model


def snapshot(vectors: np.ndarray, codes: Tensor, codebooks: Tensor) -> Snapshot:
    """An index in memory of images that the retriever was trained on, all alive."""
    keys = np.random.default_rng(0).permutation(len(codes))
    segment = Segment.build(
        codes,
        torch.from_numpy(np.array(vectors)),
        torch.from_numpy(keys),
        torch.ones(len(codes), dtype=torch.bool),
    )
    return Snapshot.build((segment,), (torch.ones(len(codes), dtype=torch.bool),), codebooks)


@dataclass(frozen=True)
class Pool:
    """Queries as the models would have read them, enough for the batches to differ."""

    embeddings: Tensor  # (n, D)
    tokens: Tensor  # (n, P, T)

    @classmethod
    def of(cls, embeddings: Tensor, seed: int = 0) -> "Pool":
        """With tokens that are noise."""
        generator = torch.Generator().manual_seed(seed)
        shape = (len(embeddings), TOKENS, TOKEN_WIDTH)
        return cls(embeddings, torch.randn(shape, generator=generator))

    def rows(self, number: int, batch: int) -> Tensor:
        """Which queries the batch of that number asks: (batch,) int64."""
        return (torch.arange(batch) + number * batch) % len(self.embeddings)

    def read(self, number: int, batch: int) -> QueryFeatures:
        """A batch of queries."""
        rows = self.rows(number, batch)
        return QueryFeatures(self.embeddings[rows], self.tokens[rows], self.embeddings[rows])


@dataclass(frozen=True)
class Search:
    """One way to search one index."""

    decoder: Decoder
    held: Snapshot
    pool: Pool
    batch: int
    beams: int

    @property
    def options(self) -> Options:
        """As an index searches unless told otherwise, but for the beams."""
        return Options(beams=self.beams)

    def __call__(self, number: int) -> Hits:
        read = self.pool.read(number, self.batch)
        return engine.search(self.decoder, read, self.held, K, self.options)


@dataclass
class Clocked:
    """A scorer whose time is added up in ``seconds``."""

    scorer: beam.Scorer
    seconds: float = 0.0

    @property
    def queries(self) -> int:
        """Q."""
        return self.scorer.queries

    @property
    def device(self) -> torch.device:
        """Where the scores come from."""
        return self.scorer.device

    def step_scores(self, level: int, last: Tensor, origin: Tensor) -> Tensor:
        """The scorer's own."""
        started = time.perf_counter()
        found = self.scorer.step_scores(level, last, origin)
        self.seconds += time.perf_counter() - started
        return found


PRECISIONS = ("fp32", "bf16", "int8")
PARTS = ("read", "steps", "trie", "candidates")


def take_apart(search: Search, patience: Patience) -> tuple[Times, dict[str, Times]]:
    """The times of a search, and those of its parts.

    Each repetition runs the search as it is, then another batch piece by piece: ``read``, the
    decoder reading the images; ``steps``, the decoder scoring the next codes of all beams, its
    cache's reordering included; ``trie``, all else of the beam search: children, masks, the best of
    them; ``candidates``: images gathered, compared with the query and ordered. What looks for
    copies of the query is in the time of the search alone.
    """
    whole: list[float] = []
    parts: dict[str, list[float]] = {name: [] for name in PARTS}
    started = time.perf_counter()
    for number in range(-patience.warm, patience.most):
        if time.perf_counter() - started > patience.seconds and number >= patience.least:
            break
        began = time.perf_counter()
        search(2 * number)
        seconds = time.perf_counter() - began
        pieces = _pieces(search, 2 * number + 1)
        if number >= 0:
            whole.append(seconds)
            for name, value in zip(PARTS, pieces, strict=True):
                parts[name].append(value)
    return Times(tuple(whole)), {name: Times(tuple(found)) for name, found in parts.items()}


def _pieces(search: Search, number: int) -> tuple[float, float, float, float]:
    """Return the seconds of the four parts for one batch."""
    read = search.pool.read(number, search.batch)
    began = time.perf_counter()
    parts = search.held.live_parts(fresh=False)
    clocked = Clocked(search.decoder.start(read.summary, read.tokens))
    had_read = time.perf_counter()
    beams = beam.search(clocked, [part.live for part in parts], search.beams)
    had_written = time.perf_counter()
    found = rank.gather(search.held, parts, beams, search.options.candidates)
    rank.order_by_score(found, rank.cosine(found.rows, read.embedding, search.held))
    ended = time.perf_counter()
    writing = had_written - had_read
    return had_read - began, clocked.seconds, writing - clocked.seconds, ended - had_written


@dataclass(frozen=True)
class Agreement:
    """Of ``queries``, how many got ``identical`` lists of codes, how many the ``same`` but for an
    order among scores that differ by less than ``TIE``, and the largest difference of scores."""

    queries: int
    identical: int
    same: int
    difference: float

    @property
    def all(self) -> bool:
        """Tell whether every query's list is the same."""
        return self.same == self.queries

    def __str__(self) -> str:
        if self.identical == self.queries:
            return f"yes: {self.identical} of {self.queries} lists identical"
        verdict = "yes" if self.all else "NO"
        return (
            f"{verdict}: {self.identical} of {self.queries} lists identical, {self.same} the same "
            f"up to log-probabilities nearer than {TIE:g}"
        )


TIE = 1e-4


def agreement(
    model: IdentifierDecoder, held: Snapshot, trie: published.Node, asked: tuple[Pool, int, int]
) -> Agreement:
    """Our codes beside those of the published search with the same fp32 weights; ``asked``: the
    pool, how many of its queries, and the beams."""
    pool, count, width = asked
    decoder, parts = Decoder(model, "fp32"), [part.live for part in held.live_parts(fresh=False)]
    read = pool.read(0, count)
    ours = beam.search(decoder.start(read.summary, read.tokens), parts, width)
    identical = same = 0
    largest = 0.0
    for i in range(count):
        theirs = published.search(
            model, read.summary[i : i + 1], read.tokens[i : i + 1], trie, width
        )
        scores = theirs.probabilities.log()
        apart = float((scores - ours.scores[i]).abs().max())
        equal = bool((theirs.codes == ours.codes[i]).all())
        largest, identical = max(largest, apart), identical + equal
        same += equal or (apart < TIE and _up_to_ties(theirs.codes, ours.codes[i], scores))
    return Agreement(count, identical, same, largest)


def _up_to_ties(one: Tensor, other: Tensor, scores: Tensor) -> bool:
    """Tell whether two lists of codes (W, M) are equal, but for codes that tie with the last."""
    safe = scores - scores[-1] >= TIE
    kept = {tuple(code) for code in other.tolist()}
    return all(tuple(code) in kept for code in one[safe].tolist())


def overlap(one: Search, other: Search, batches: Sequence[int]) -> float:
    """Return the share of the first search's images that the second found too."""
    shares = []
    for number in batches:
        rows, others = one(number).rows, other(number).rows
        found = (rows[:, :, None] == others[:, None, :]).any(-1) & (rows >= 0)
        shares.append(float(found.sum() / (rows >= 0).sum().clamp_min(1)))
    return float(np.mean(shares))
