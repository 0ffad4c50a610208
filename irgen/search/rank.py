"""From beams to images: gather the buckets, order them by tuned embedding, cut at k."""

from dataclasses import dataclass

import torch
from torch import Tensor

from irgen.search.beam import Beams
from irgen.search.result import Result
from irgen.search.trie import Trie


@dataclass(frozen=True)
class Candidates:
    """Images gathered from the beams, in the beams' order.

    ``rows`` (Q, C) int64 database rows, −1 where there are fewer; ``scores`` (Q, C) float32, the
    log-probability of the image's identifier; ``beams`` (Q, C) int64, the beam it came from, −1.
    """

    rows: Tensor
    scores: Tensor
    beams: Tensor


def gather(trie: Trie, beams: Beams, wanted: int, limit: int) -> Candidates:
    """Whole buckets, best beam first, until a query has ``wanted`` images; never more than
    ``limit``.

    A bucket is only cut by ``limit`` (then in order of row). Buckets after the one that reaches
    ``wanted`` are gathered too as far as another query of the batch needs the room; ``by_code``
    never ranks them before the ones a query needs.
    """
    leaves = beams.leaves.clamp_min(0)
    first = trie.offsets[-1][leaves]  # (Q, W)
    sizes = torch.where(beams.leaves >= 0, trie.offsets[-1][leaves + 1] - first, 0)
    ends = sizes.cumsum(1)  # (Q, W) images gathered up to and with each beam
    enough = torch.where(ends >= wanted, ends, ends[:, -1:]).amin(1)  # (Q,)
    slots = torch.arange(min(limit, int(enough.max())), device=ends.device).expand(len(ends), -1)
    beam = torch.searchsorted(ends, slots.contiguous(), right=True)  # (Q, C)
    exist = slots < ends[:, -1:]
    beam = torch.where(exist, beam, 0)
    place = first.gather(1, beam) + slots - (ends - sizes).gather(1, beam)
    rows = trie.postings[torch.where(exist, place, 0)]
    return Candidates(
        torch.where(exist, rows, -1),
        torch.where(exist, beams.scores.gather(1, beam), -torch.inf),
        torch.where(exist, beam, -1),
    )


def similarity(candidates: Candidates, queries: Tensor, embeddings: Tensor) -> Tensor:
    """Cosines (Q, C) of each query's unit embedding (Q, D) with its candidates' in ``embeddings``
    (N, D); −inf where there is no candidate."""
    vectors = embeddings[candidates.rows.clamp_min(0)]  # (Q, C, D)
    cosines = torch.einsum("qd,qcd->qc", queries, vectors.to(queries))
    return torch.where(candidates.rows >= 0, cosines, -torch.inf)


def by_code(candidates: Candidates, cosines: Tensor, k: int) -> Result:
    """The first k by identifier, images of one bucket by cosine, ties by row. Scores are
    log-probabilities of the identifier."""
    order = _order(candidates.rows, cosines)
    beams = candidates.beams.gather(1, order)
    beams = torch.where(beams >= 0, beams, torch.iinfo(torch.int64).max)
    order = order.gather(1, beams.argsort(dim=1, stable=True))
    return _cut(candidates.rows, candidates.scores, order, k)


def by_cosine(candidates: Candidates, cosines: Tensor, k: int) -> Result:
    """The first k of all candidates by cosine, ties by row. Scores are cosines."""
    return _cut(candidates.rows, cosines, _order(candidates.rows, cosines), k)


def _order(rows: Tensor, scores: Tensor) -> Tensor:
    """Places sorted by score, highest first, ties by the lower row: (Q, C) → (Q, C)."""
    by_row = rows.argsort(dim=1, stable=True)
    return by_row.gather(1, scores.gather(1, by_row).argsort(dim=1, descending=True, stable=True))


def _cut(rows: Tensor, scores: Tensor, order: Tensor, k: int) -> Result:
    missing = max(0, k - rows.shape[1])
    pad = torch.nn.functional.pad
    return Result(
        pad(rows.gather(1, order[:, :k]), (0, missing), value=-1),
        pad(scores.gather(1, order[:, :k]).float(), (0, missing), value=-torch.inf),
    )
