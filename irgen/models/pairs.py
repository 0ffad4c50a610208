"""Nearest-neighbour pairs: for each image the k others whose codes the retriever is trained on."""

import torch
from torch import Tensor
from torch.nn import functional as F

BLOCK = 1024  # rows a similarity matrix; columns go in blocks of 64 times as many


def near_same_label(features: Tensor, labels: Tensor, k: int, seed: int) -> tuple[Tensor, Tensor]:
    """Find the k nearest of the same label by cosine, ties by row; never the image itself.

    Args: ``features`` (N, D), ``labels`` (N,) int64. Returns rows (N, k) int64, −1 where a label
    has fewer than k others, and cosines (N, k), −inf there. Never N × N in memory.
    """
    unit, rows, scores = F.normalize(features, dim=-1), *_blank(len(features), k)
    for members in _by_label(labels):
        nearest, cosines = _nearest(unit[members], k)
        rows[members] = torch.where(nearest >= 0, members[nearest.clamp_min(0)], -1)
        scores[members] = cosines
    return rows, scores


def near(features: Tensor, labels: Tensor, k: int, seed: int) -> tuple[Tensor, Tensor]:
    """Find the k nearest by cosine whatever their label; shapes and padding as in
    ``near_same_label``."""
    return _nearest(F.normalize(features, dim=-1), k)


def same_label(features: Tensor, labels: Tensor, k: int, seed: int) -> tuple[Tensor, Tensor]:
    """Draw k others of the same label without replacement, as the paper's code does; shapes and
    padding as in ``near_same_label``."""
    unit, rows, scores = F.normalize(features, dim=-1), *_blank(len(features), k)
    generator = torch.Generator().manual_seed(seed)
    for members in _by_label(labels):
        for row in members.tolist():
            others = members[torch.randperm(len(members), generator=generator)]
            drawn = others[others != row][:k]
            rows[row, : len(drawn)] = drawn
            scores[row, : len(drawn)] = unit[drawn] @ unit[row]
    return rows, scores


RULES = {"near_same_label": near_same_label, "near": near, "same_label": same_label}


def _by_label(labels: Tensor) -> tuple[Tensor, ...]:
    """Return the rows of each label, ascending, labels in order."""
    counts = labels.unique(return_counts=True)[1]
    return labels.argsort(stable=True).split(counts.tolist())


def _blank(count: int, k: int) -> tuple[Tensor, Tensor]:
    return torch.full((count, k), -1), torch.full((count, k), -torch.inf)


def _nearest(unit: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Find the k nearest others of each of (n, D) unit vectors: numbers (n, k), −1 where n ≤ k, and
    cosines."""
    numbers, scores = _blank(len(unit), k)
    for start in range(0, len(unit), BLOCK):
        rows = torch.arange(start, min(start + BLOCK, len(unit)))
        best = torch.empty(len(rows), 0)
        index = torch.empty(len(rows), 0, dtype=torch.int64)
        for left in range(0, len(unit), 64 * BLOCK):
            columns = torch.arange(left, min(left + 64 * BLOCK, len(unit)))
            cosines = unit[rows] @ unit[columns].T  # (rows, columns)
            cosines[rows[:, None] == columns] = -torch.inf
            best, order = torch.cat([best, cosines], 1).sort(dim=1, descending=True, stable=True)
            index = torch.cat([index, columns.expand(len(rows), -1)], 1).gather(1, order)[:, :k]
            best = best[:, :k]
        kept = torch.where(best > -torch.inf, index, -1)
        numbers[rows, : kept.shape[1]], scores[rows, : kept.shape[1]] = kept, best
    return numbers, scores
