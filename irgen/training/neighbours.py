"""Find the nearest neighbours of vectors among themselves: all compared with all, or by cells."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from irgen.compute.batches import row_blocks
from irgen.compute.seeds import seeded_generator
from irgen.models.quantizer import ROWS, assign, kmeans
from irgen.search.brute_force import brute_force_search

EXACT = 131_072  # vectors; up to so many, all are compared with all; of more, about so many
BLOCK = 1024  # anchors compared at once
TRAINED, ITERATIONS = 32, 5  # of the cells' k-means: vectors a centre, and steps
SAMPLE = 1000  # anchors whose true neighbours are looked up
REACHED = 0.95  # share of the sample's true neighbours that the compared cells hold


@dataclass(frozen=True)
class UnitVectors:
    """Make unit vectors of ``features`` (N, D) when they are taken, of the ``rows`` (n,) only: so
    features mapped to a file are compared without a copy in memory."""

    features: Tensor
    rows: Tensor

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, positions: Tensor | slice) -> Tensor:
        return F.normalize(self.features[self.rows[positions]], dim=-1)


Unit = Tensor | UnitVectors  # (n, D) unit vectors


def take_unit(features: Tensor, rows: Tensor) -> Unit:
    """Return unit vectors of the ``rows`` (n,) of ``features`` (N, D): in memory up to EXACT."""
    unit = UnitVectors(features, rows)
    return unit if len(rows) > EXACT else unit[:]


def nearest_others(unit: Unit, k: int, seed: int) -> tuple[Tensor, Tensor]:
    """Find the k nearest others of each of (n, D) unit vectors: rows (n, k) int64, −1 where n ≤ k,
    and cosines (n, k), −inf there; ties by row.

    Up to EXACT vectors the result is exact, in time O(n² D). Above it, see ``search_cells``.
    """
    if len(unit) > EXACT:
        return search_cells(unit, k, seed)
    rows = torch.arange(len(unit))
    return compare(unit, rows, rows, k)


def compare(unit: Unit, anchors: Tensor, candidates: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Find the k nearest of the rows ``candidates``, ascending, to each of the rows ``anchors``.

    No anchor is a neighbour of itself. Returns rows and cosines (anchors, k), as
    ``nearest_others`` does. Time O(anchors · candidates · D); memory: one block of
    1,024 × 65,536 cosines.
    """
    numbers, cosines = blank(len(anchors), k)
    pool = unit if len(candidates) == len(unit) else unit[candidates]
    for start in range(0, len(anchors), BLOCK):
        block = anchors[start : start + BLOCK]
        hits = brute_force_search(unit[block], pool, k + 1)
        rows = torch.where(hits.ids >= 0, candidates[hits.ids.clamp_min(0)], -1)
        left_out = rows == block[:, None]
        left_out[~left_out.any(1), -1] = True  # itself is not among them: drop the last
        numbers[start : start + BLOCK] = rows[~left_out].view(-1, k)
        cosines[start : start + BLOCK] = hits.scores[~left_out].view(-1, k)
    return numbers, cosines


def blank(count: int, k: int) -> tuple[Tensor, Tensor]:
    """Return rows and cosines (count, k) of anchors without neighbours."""
    return torch.full((count, k), -1), torch.full((count, k), -torch.inf)


def search_cells(unit: Unit, k: int, seed: int) -> tuple[Tensor, Tensor]:
    """Find most of the k nearest others of each of (n, D) unit vectors, as ``nearest_others`` does.

    Vectors are divided into 2 √n cells by k-means of a sample. Those of a cell are compared with
    those of the cells around it: as many as hold REACHED of the true neighbours of a sample, but
    not many more than EXACT. Time O(n^1.5 D + n c D), c the compared vectors.
    """
    generator = seeded_generator(seed, len(unit))
    count = 2 * math.isqrt(len(unit))
    drawn = torch.randperm(len(unit), generator=generator)[: TRAINED * count]
    centres, _ = kmeans(unit[drawn], unit[drawn[:count]], ITERATIONS, generator)
    blocks = row_blocks(len(unit), ROWS)
    cells = torch.cat([assign(unit[rows], centres)[0] for rows in blocks])  # (n,)
    before = count_before(centres, cells)  # (cells, cells)
    reach = max(min(choose_reach(unit, cells, before, k, generator), EXACT), k)
    numbers, cosines = blank(len(unit), k)
    for cell, members in enumerate(split_by(cells, count)):
        candidates = torch.nonzero((before[cell] <= reach)[cells]).flatten()
        candidates = candidates[:: -(-len(candidates) // (2 * EXACT))]  # of copies a part will do
        numbers[members], cosines[members] = compare(unit, members, candidates, k)
    return numbers, cosines


def count_before(centres: Tensor, cells: Tensor) -> Tensor:
    """Count the vectors in the cells that are nearer to cell i than cell j is: (cells, cells)
    int64, 0 for itself. ``centres`` (cells, D); ``cells`` (n,): the cell of each vector."""
    distances = torch.cdist(centres, centres)
    order = distances.fill_diagonal_(-1).argsort(dim=1, stable=True)
    sizes = torch.bincount(cells, minlength=len(centres))[order]
    return torch.empty_like(order).scatter_(1, order, sizes.cumsum(1) - sizes)


def choose_reach(
    unit: Unit, cells: Tensor, before: Tensor, k: int, generator: torch.Generator
) -> int:
    """Return the number of vectors in nearer cells up to which a cell must be compared, so that
    REACHED of the true neighbours of a sample are found."""
    anchors = torch.randperm(len(unit), generator=generator)[:SAMPLE]
    numbers, _ = compare(unit, anchors, torch.arange(len(unit)), k)
    needed = before[cells[anchors][:, None], cells[numbers]].flatten()
    return int(needed.kthvalue(math.ceil(REACHED * len(needed))).values)


def split_by(numbers: Tensor, count: int) -> tuple[Tensor, ...]:
    """Return the rows of each number below ``count``, ascending: (n,) int64 → ``count`` tensors."""
    counts = torch.bincount(numbers, minlength=count)
    return numbers.argsort(stable=True).split(counts.tolist())


def measure_recall(
    features: Tensor, groups: tuple[Tensor, ...], scores: Tensor, seed: int
) -> float:
    """Return the share of true neighbours that ``scores`` (N, k), cosines of the neighbours found,
    hold: of SAMPLE anchors of the ``groups`` (rows) that are too large to be searched exactly; 1 if
    none is. Equal cosines count alike, whichever copy of an image is found."""
    large = [rows for rows in groups if len(rows) > EXACT]
    if not large:
        return 1.0
    generator, k, hits, wanted = seeded_generator(seed), scores.shape[1], 0, 0
    for rows in large:
        drawn = torch.randperm(len(rows), generator=generator)
        anchors = drawn[: math.ceil(SAMPLE * len(rows) / sum(map(len, large)))]
        true = compare(take_unit(features, rows), anchors, torch.arange(len(rows)), k)[1]
        hits += int((scores[rows[anchors]] >= true[:, -1:] - 1e-6).sum())
        wanted += true.numel()
    return hits / wanted
