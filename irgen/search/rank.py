"""Rank the images of beams: gather those of each code, order them, hide near-duplicates."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional as F

from irgen.search.beam import Beams
from irgen.search.snapshot import LivePart, Snapshot

LAST = torch.iinfo(torch.int64).max  # a key after all keys
CELLS = 1 << 24  # numbers of candidates' embeddings that are read together


@dataclass(frozen=True)
class Candidates:
    """Images gathered for each query, in no particular order; all (Q, C).

    ``rows`` int64, −1 where there are fewer; ``keys`` int64 break ties; ``scores`` and
    ``normalised_log_probs`` float32 are those of the image's code sequence (see ``Beams``), −inf
    where there is none; ``by_embedding`` bool: the image's code was found by the query's embedding
    and not predicted by the retriever.
    """

    rows: Tensor
    keys: Tensor
    scores: Tensor
    normalised_log_probs: Tensor
    by_embedding: Tensor

    def keep(self, kept: Tensor) -> "Candidates":
        """Return the candidates with blanks where ``kept`` (Q, C) is false."""
        return Candidates(
            self.rows.masked_fill(~kept, -1),
            self.keys.masked_fill(~kept, LAST),
            self.scores.masked_fill(~kept, -torch.inf),
            self.normalised_log_probs.masked_fill(~kept, -torch.inf),
            self.by_embedding & kept,
        )

    def take(self, columns: Tensor) -> "Candidates":
        """Return the candidates at ``columns`` (Q, c)."""
        names = [field.name for field in fields(self)]
        return Candidates(*(getattr(self, name).gather(1, columns) for name in names))

    def mark_by_embedding(self) -> "Candidates":
        """Return the candidates as found by embedding: without scores of a code sequence."""
        blank = torch.full_like(self.scores, -torch.inf)
        return Candidates(self.rows, self.keys, blank, blank, self.rows >= 0)

    def merge(self, *others: "Candidates") -> "Candidates":
        """Return all side by side; of an image in several, keep the values of the first."""
        names = [field.name for field in fields(self)]
        both = Candidates(
            *(torch.cat([getattr(part, name) for part in (self, *others)], 1) for name in names)
        )
        order = both.rows.argsort(dim=1, stable=True)  # of equals, the first stays first
        ordered = both.rows.gather(1, order)
        repeated = F.pad(ordered[:, 1:] == ordered[:, :-1], (1, 0))
        return both.keep(~torch.zeros_like(repeated).scatter(1, order, repeated))


def list_rows(rows: Tensor, snapshot: Snapshot) -> Candidates:
    """Return ``rows`` (Q, C), −1 where there are fewer, as candidates that no code led to."""
    blank, no = (
        torch.full(rows.shape, -torch.inf, device=rows.device),
        torch.zeros_like(rows).bool(),
    )
    return Candidates(rows, snapshot.gather(rows, "keys"), blank, blank, no).keep(rows >= 0)


def gather(snapshot: Snapshot, parts: Sequence[LivePart], beams: Beams, limit: int) -> Candidates:
    """Return at most ``limit`` images of the beams, best beam first, within a code group by key.

    ``parts``: the live rows of the tries that were searched.
    """
    ranges = [
        part.live.group_ranges(leaves) for part, leaves in zip(parts, beams.leaves, strict=True)
    ]
    sizes = [end - first for first, end in ranges]  # (Q, W) each
    together = torch.stack(sizes).sum(0)  # (Q, W) images of each beam
    room = (limit - (together.cumsum(1) - together)).clamp_min(0)  # left for each beam
    rows, beam_numbers = [], []
    for part, (first, _), size in zip(parts, ranges, sizes, strict=True):
        position, beam = _expand_ranges(first, torch.minimum(size, room))
        row = part.live.postings[position.clamp_min(0)].long() + part.first_row
        rows.append(row.masked_fill(position < 0, -1))
        beam_numbers.append(beam)
    row, beam = torch.cat(rows, 1), torch.cat(beam_numbers, 1)
    keys = snapshot.gather(row, "keys").masked_fill(row < 0, LAST)
    if len(parts) > 1:  # each part is in order, the two together are not
        order = _argsort(beam.masked_fill(row < 0, LAST), keys)[:, :limit]
        row, beam, keys = (column.gather(1, order) for column in (row, beam, keys))
    return Candidates(
        rows=row,
        keys=keys,
        scores=beams.scores.gather(1, beam),
        normalised_log_probs=beams.normalised_log_probs.gather(1, beam),
        by_embedding=torch.zeros_like(row, dtype=torch.bool),
    ).keep(row >= 0)


def _expand_ranges(first: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """List the positions of ranges (Q, W), one range after the other.

    Returns positions (Q, C) int64, −1 at the end of a query that has fewer, and the number of the
    range (Q, C) that each position is from.
    """
    ends = sizes.cumsum(1)
    slots = torch.arange(int(ends[:, -1].max()), device=ends.device).expand(len(ends), -1)
    number = torch.searchsorted(ends, slots.contiguous(), right=True)
    exist = number < sizes.shape[1]
    number = number.clamp_max(sizes.shape[1] - 1)
    positions = (first - ends + sizes).gather(1, number) + slots
    return positions.masked_fill(~exist, -1), number


def cosine(rows: Tensor, queries: Tensor, snapshot: Snapshot) -> Tensor:
    """Return the cosines (Q, C) of each query's unit embedding (Q, D) with those of ``rows``
    (Q, C); −inf where there is no row. Rounding may lift one above 1."""
    parts, size = [], 64 * max(1, CELLS // (64 * queries.numel()))  # so that no bit depends on it
    for block in rows.split(size, 1):  # (Q, c)
        vectors = snapshot.gather(block, "embeddings").to(queries.dtype)  # (Q, c, D)
        parts.append(torch.bmm(vectors, queries[..., None])[..., 0])
    return torch.cat(parts, 1).masked_fill(rows < 0, -torch.inf)


def order_by_score(candidates: Candidates, scores: Tensor) -> Tensor:
    """Return the order (Q, C) by score, best first, ties by key."""
    return _argsort(-scores, candidates.keys)


def order_by_code(candidates: Candidates, scores: Tensor, cosines: Tensor) -> Tensor:
    """Return the order (Q, C) by the score of the code, best first; ties by cosine, then by key."""
    return _argsort(-scores, -cosines, candidates.keys)


def _argsort(*columns: Tensor) -> Tensor:
    """Return the order (Q, C) by the first column, ascending, its ties by the second, and so on."""
    order = columns[-1].argsort(dim=1, stable=True)
    for column in reversed(columns[:-1]):
        order = order.gather(1, column.gather(1, order).argsort(dim=1, stable=True))
    return order


def mask_near_duplicates(rows: Tensor, snapshot: Snapshot, threshold: float) -> Tensor:
    """Return which images (Q, C), best first, to keep, (Q, C) bool: those whose cosine with every
    better kept image is below ``threshold``."""
    vectors = snapshot.gather(rows, "embeddings").float()  # (Q, C, D)
    near = torch.bmm(vectors, vectors.transpose(1, 2)) >= threshold  # (Q, C, C)
    kept = rows >= 0
    for rank in range(1, rows.shape[1]):
        kept[:, rank] &= ~(near[:, rank, :rank] & kept[:, :rank]).any(1)
    return kept


def order_kept_first(kept: Tensor) -> Tensor:
    """Return the order (Q, C) that puts kept images first, else unchanged."""
    return (~kept).to(torch.int8).argsort(dim=1, stable=True)
