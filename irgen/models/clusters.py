"""Clusters that stand for labels where there are none (as of DeepCluster, Caron et al. 2018)."""

import numpy as np
import torch
from torch import Tensor

from irgen.models.quantizer import assign, fit_centres

VERSION = 1  # raise when equal vectors and seeds give other clusters
STARTS = 3  # the tightest clusters of so many starts are kept


def cluster(vectors: Tensor, count: int, iterations: int, seed: int) -> Tensor:
    """Return cluster numbers (N,) int64 of vectors (N, D) by k-means, N ≥ ``count``.

    The best of STARTS seeded k-means++ starts is kept, by the sum of squared distances.
    """
    generator = torch.Generator().manual_seed(seed)
    best, least = torch.zeros(len(vectors), dtype=torch.int64), torch.inf
    for _ in range(STARTS):
        centres, _ = fit_centres(vectors, None, count, iterations, generator)
        numbers, distances = assign(vectors, centres)
        if (spread := float(distances.double().sum())) < least:
            best, least = numbers, spread
    return best


def match_numbers(new: Tensor, old: Tensor, count: int) -> Tensor:
    """Renumber ``new`` clusters (N,) below ``count`` so that as many images as possible keep their
    ``old`` number: the best one-to-one match (Kuhn 1955).

    >>> match_numbers(torch.tensor([2, 2, 0, 1]), torch.tensor([0, 0, 1, 1]), 3).tolist()
    [0, 0, 1, 2]
    """
    from scipy.optimize import linear_sum_assignment  # a second that most stages need not pay

    shared = torch.bincount(new * count + old, minlength=count * count).view(count, count)
    rows, numbers = linear_sum_assignment(shared.numpy(), maximize=True)
    table = np.empty(count, dtype=np.int64)
    table[rows] = numbers
    return torch.from_numpy(table)[new]
