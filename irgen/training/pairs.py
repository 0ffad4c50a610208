"""Nearest-neighbour pairs: for each image the k others whose codes the retriever is trained on."""

import random
from dataclasses import dataclass

import torch
from torch import Tensor

from irgen.training import neighbours
from irgen.training.neighbours import blank, measure_recall, nearest_others, split_by, take_unit


@dataclass(frozen=True)
class Pairs:
    """``rows`` (N, k) int64 of each image's k others, −1 where there are fewer, and ``cosines``
    (N, k), −inf there. ``recall``: share of the true nearest among them, measured on a sample where
    a label has more than ``neighbours.EXACT`` images; None if they are drawn."""

    rows: Tensor
    cosines: Tensor
    recall: float | None


def near_same_label(features: Tensor, labels: Tensor, k: int, seed: int) -> Pairs:
    """Find the k nearest of the same label by cosine, ties by row; never the image itself.

    Args: ``features`` (N, D), ``labels`` (N,) int64. Time O(n² D) for a label of n images, exact;
    with more than ``neighbours.EXACT``, see ``neighbours.search_cells``. Never N × N in memory.
    """
    return _near(features, _by_label(labels), k, seed)


def near(features: Tensor, labels: Tensor, k: int, seed: int) -> Pairs:
    """Find the k nearest by cosine whatever their label, as ``near_same_label`` does."""
    return _near(features, (torch.arange(len(features)),), k, seed)


def same_label(features: Tensor, labels: Tensor, k: int, seed: int) -> Pairs:
    """Draw k others of the same label without replacement, as the paper's code does. Time O(N n)
    in labels of up to ``neighbours.EXACT`` images n, O(N k) in larger ones."""
    unit = take_unit(features, torch.arange(len(features)))
    rows, scores = blank(len(features), k)
    generator = torch.Generator().manual_seed(seed)
    for members in _by_label(labels):
        for number, row in enumerate(members.tolist()):
            if len(members) <= neighbours.EXACT:
                others = members[torch.randperm(len(members), generator=generator)]
                drawn = others[others != row][:k]
            else:
                drawn = members[_draw_others(number, len(members), k, seed + row)]
            rows[row, : len(drawn)] = drawn
            scores[row, : len(drawn)] = unit[drawn] @ unit[members[number]]
    return Pairs(rows, scores, None)


RULES = {"near_same_label": near_same_label, "near": near, "same_label": same_label}


def _near(features: Tensor, groups: tuple[Tensor, ...], k: int, seed: int) -> Pairs:
    """Find the k nearest of the same group; ``groups``: the rows of each."""
    rows, scores = blank(len(features), k)
    for members in groups:
        nearest, cosines = nearest_others(take_unit(features, members), k, seed)
        rows[members] = torch.where(nearest >= 0, members[nearest.clamp_min(0)], -1)
        scores[members] = cosines
    return Pairs(rows, scores, measure_recall(features, groups, scores, seed))


def _by_label(labels: Tensor) -> tuple[Tensor, ...]:
    """Return the rows of each label, ascending, labels in order."""
    numbers = labels.unique(return_inverse=True)[1]
    return split_by(numbers, int(numbers.max()) + 1)


def _draw_others(number: int, count: int, k: int, seed: int) -> Tensor:
    """Draw k different numbers below ``count`` other than ``number``: (k,) int64, k < count."""
    drawn = torch.tensor(random.Random(seed).sample(range(count - 1), k))
    return drawn + (drawn >= number)
