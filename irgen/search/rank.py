"""From beams to images: gather their buckets, order the images, cut at k."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from irgen.search.beam import Beams
from irgen.search.live import Live
from irgen.search.snapshot import Snapshot

LAST = torch.iinfo(torch.int64).max  # a key after all keys


@dataclass(frozen=True)
class Candidates:
    """Images found for each query, in no order that counts.

    All (Q, C): ``rows`` int64, −1 where there are fewer; ``keys`` int64, by which ties are broken;
    ``scores`` and ``shares`` float32, those of the image's identifier (see ``Beams``), −inf where
    there is none; ``dense`` bool: reached by its embedding alone, not written by the retriever.
    """

    rows: Tensor
    keys: Tensor
    scores: Tensor
    shares: Tensor
    dense: Tensor

    def only(self, kept: Tensor) -> "Candidates":
        """The same with blanks where ``kept`` (Q, C) is false."""
        return Candidates(
            self.rows.masked_fill(~kept, -1),
            self.keys.masked_fill(~kept, LAST),
            self.scores.masked_fill(~kept, -torch.inf),
            self.shares.masked_fill(~kept, -torch.inf),
            self.dense & kept,
        )

    def reached(self) -> "Candidates":
        """The same as images reached by their embedding: without scores of an identifier."""
        blank = torch.full_like(self.scores, -torch.inf)
        return Candidates(self.rows, self.keys, blank, blank, self.rows >= 0)

    def along(self, others: "Candidates") -> "Candidates":
        """Both side by side; an image that is in both stays as it is here."""
        both = Candidates(
            torch.cat([self.rows, others.rows], 1),
            torch.cat([self.keys, others.keys], 1),
            torch.cat([self.scores, others.scores], 1),
            torch.cat([self.shares, others.shares], 1),
            torch.cat([self.dense, others.dense], 1),
        )
        order = both.rows.argsort(dim=1, stable=True)  # of equals, the first stays first
        ordered = both.rows.gather(1, order)
        again = F.pad(ordered[:, 1:] == ordered[:, :-1], (1, 0))
        return both.only(~torch.zeros_like(again).scatter(1, order, again))


def gather(
    snapshot: Snapshot, parts: Sequence[tuple[int, Live]], beams: Beams, limit: int
) -> Candidates:
    """The images of the beams, best beam first, those of one identifier by key, at most ``limit``.

    ``parts`` are what the beams walked: numbers of segments and the rows of them that take part.
    """
    starts = snapshot.starts
    offsets = torch.stack(
        [_ends(part, at) for (_, part), at in zip(parts, beams.leaves, strict=True)]
    )
    first, sizes = offsets[:, 0], offsets[:, 1] - offsets[:, 0]  # (parts, Q, W) each
    together = sizes.sum(0)  # (Q, W) images of each beam
    room = (limit - (together.cumsum(1) - together)).clamp_min(0)  # left when its turn comes
    rows, places = [], []
    for (number, part), begin, size in zip(parts, first, sizes, strict=True):
        at, beam = _slots(begin, torch.minimum(size, room))
        found = part.postings[at.clamp_min(0)].long() + starts[number]
        rows.append(found.masked_fill(at < 0, -1))
        places.append(beam)
    every, beam = torch.cat(rows, 1), torch.cat(places, 1)
    keys = snapshot.gather(every, "keys").masked_fill(every < 0, LAST)
    if len(parts) > 1:  # each part is in order, the two together are not
        order = _sorted(beam.masked_fill(every < 0, LAST), keys)[:, :limit]
        every, beam, keys = (column.gather(1, order) for column in (every, beam, keys))
    scores, shares = beams.scores.gather(1, beam), beams.shares.gather(1, beam)
    exist = every >= 0
    return Candidates(every, keys, scores, shares, torch.zeros_like(exist)).only(exist)


def _ends(part: Live, leaves: Tensor) -> Tensor:
    """Where each leaf's bucket begins and ends: (Q, W) → (2, Q, W) int64; both 0 of leaf −1."""
    leaf = leaves.clamp_min(0)
    ends = torch.stack([part.buckets[leaf], part.buckets[leaf + 1]]).long()
    return ends.masked_fill(leaves < 0, 0)


def _slots(first: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """Ranges (Q, W) of places, one after the other: places (Q, C) int64, −1 at the end of a query
    that has fewer, and the range (Q, C) each one is of."""
    ends = sizes.cumsum(1)
    slots = torch.arange(int(ends[:, -1].max()), device=ends.device).expand(len(ends), -1)
    which = torch.searchsorted(ends, slots.contiguous(), right=True)
    exist = which < sizes.shape[1]
    which = which.clamp_max(sizes.shape[1] - 1)
    places = (first - ends + sizes).gather(1, which) + slots
    return places.masked_fill(~exist, -1), which


def similarity(rows: Tensor, queries: Tensor, snapshot: Snapshot) -> Tensor:
    """Cosines (Q, C) of each query's unit embedding (Q, D) with those of ``rows`` (Q, C); −inf
    where there is no row. Rounding may lift one above 1."""
    vectors = snapshot.gather(rows, "embeddings").to(queries.dtype)  # (Q, C, D)
    cosines = torch.bmm(vectors, queries[..., None])[..., 0]
    return cosines.masked_fill(rows < 0, -torch.inf)


def fused(
    rows: Tensor, cosines: Tensor, opening: Tensor, snapshot: Snapshot, weight: float
) -> Tensor:
    """Cosines (Q, C) of ``rows`` (Q, C) plus ``weight`` times what ``opening`` (Q, size) has for
    the first entry of each one's code: the logarithm of the probability that the retriever writes
    it, or that the query carries its label (``LabelScorer.alike``).
    What kind of image is meant is best told so, which of its kind is nearest by the cosine. That is
    so of an image that the retriever has not written, too: it has a first entry."""
    return cosines + weight * opened(rows, opening, snapshot) if weight else cosines


def opened(rows: Tensor, opening: Tensor, snapshot: Snapshot) -> Tensor:
    """What ``opening`` (Q, size) has for the first entry of the code of ``rows`` (Q, C); −inf where
    there is no row."""
    entries = snapshot.gather(rows, "codes")[..., 0].long()  # (Q, C); of no row, of any
    entries = entries.clamp_max(opening.shape[1] - 1)
    return opening.gather(1, entries).masked_fill(rows < 0, -torch.inf)


def by_score(candidates: Candidates, scores: Tensor) -> Tensor:
    """The order (Q, C) of the candidates by these scores, best first, ties by key."""
    return _sorted(-scores, candidates.keys)


def by_code(candidates: Candidates, scores: Tensor, cosines: Tensor) -> Tensor:
    """The order (Q, C) of the candidates by the scores of their identifiers or of the beginnings of
    these, those that have the same by cosine, ties by key."""
    return _sorted(-scores, -cosines, candidates.keys)


def _sorted(*columns: Tensor) -> Tensor:
    """The order (Q, C) by the first column, ascending, its ties by the second, and so on."""
    order = columns[-1].argsort(dim=1, stable=True)
    for column in reversed(columns[:-1]):
        order = order.gather(1, column.gather(1, order).argsort(dim=1, stable=True))
    return order


def distinct(rows: Tensor, snapshot: Snapshot, threshold: float) -> Tensor:
    """Of images (Q, C) best first, those to keep, (Q, C) bool: not as near as ``threshold`` (a
    cosine) to one kept before."""
    vectors = snapshot.gather(rows, "embeddings").float()  # (Q, C, D)
    near = torch.bmm(vectors, vectors.transpose(1, 2)) >= threshold  # (Q, C, C)
    kept = rows >= 0
    for place in range(1, rows.shape[1]):
        kept[:, place] &= ~(near[:, place, :place] & kept[:, :place]).any(1)
    return kept


def compress(kept: Tensor) -> Tensor:
    """The order (Q, C) that puts the places where ``kept`` is true first, otherwise as they are."""
    return (~kept).to(torch.int8).argsort(dim=1, stable=True)
