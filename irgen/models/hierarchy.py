"""Identifiers by a tree of clusters: k-means, then k-means inside each cluster, and so on (DSI, Tay
et al. 2022; NCI, Wang et al. 2022)."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from irgen.models.quantizer import assign, fit_centres

Prefix = tuple[int, ...]


@dataclass(frozen=True)
class Hierarchy:
    """``centres`` of the children of each node, (≤ L, D) by the node's prefix, () the root; a node
    with a single image, and one of the last level, has none. ``levels`` M."""

    centres: dict[Prefix, Tensor]
    levels: int


def fit(vectors: Tensor, shape: tuple[int, int], iterations: int, seed: int) -> Hierarchy:
    """Build the tree of vectors (N, D) with N ≥ 1; ``shape`` (M, L).

    Each node of more than one image is split by seeded k-means into L children, or one an image
    where it has fewer. With M = 1 this is plain k-means.
    """
    levels, size = shape
    centres: dict[Prefix, Tensor] = {}
    nodes: list[tuple[Prefix, Tensor]] = [((), torch.arange(len(vectors)))]
    for level in range(levels):
        below: list[tuple[Prefix, Tensor]] = []
        for prefix, rows in nodes:
            if len(rows) == 1:
                continue
            own, generator = vectors[rows], torch.Generator().manual_seed(seed * 1000 + level)
            count = min(size, len(rows))
            centres[prefix], _ = fit_centres(own, None, count, iterations, generator)
            below += _children(prefix, rows, assign(own, centres[prefix])[0])
        nodes = below
    return Hierarchy(centres, levels)


def encode(vectors: Tensor, tree: Hierarchy) -> Tensor:
    """Return codes (N, M) int64 of vectors (N, D): down the tree along the nearest centres, and 0
    below a node that was never split."""
    codes = torch.zeros(len(vectors), tree.levels, dtype=torch.int64)
    nodes: list[tuple[Prefix, Tensor]] = [((), torch.arange(len(vectors)))]
    for level in range(tree.levels):
        below: list[tuple[Prefix, Tensor]] = []
        for prefix, rows in nodes:
            if prefix not in tree.centres:
                continue
            nearest, _ = assign(vectors[rows], tree.centres[prefix])
            codes[rows, level] = nearest
            below += _children(prefix, rows, nearest)
        nodes = below
    return codes


def _children(prefix: Prefix, rows: Tensor, nearest: Tensor) -> Iterator[tuple[Prefix, Tensor]]:
    """Yield the children that have an image, with prefixes and rows, in order. Time: one sort."""
    order = nearest.argsort(stable=True)
    codes, counts = torch.unique_consecutive(nearest[order], return_counts=True)
    for code, members in zip(codes.tolist(), rows[order].split(counts.tolist()), strict=True):
        yield (*prefix, code), members
