"""Mark the rows of a trie that take part in a search, by live counts per node.

Deletions and filters never change the trie. They make another ``LiveTrie`` of it.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from irgen.search.trie import Trie

LARGEST_TABLE = 1 << 22  # cells of a dense table of children: 16 MB


@dataclass(frozen=True)
class LiveTrie:
    """A trie and the rows of it that take part.

    ``counts[m]`` (n_m,) int32: live rows below each node of level m; None if all rows take part.
    ``postings`` (n,) int32: the live rows in the trie's order. Leaf j's code group, the images that
    share its code, is ``postings[group_offsets[j]:group_offsets[j + 1]]``; ``group_offsets``
    (n_{M−1} + 1,) int32.
    """

    trie: Trie
    counts: tuple[Tensor, ...] | None
    group_offsets: Tensor
    postings: Tensor

    def __len__(self) -> int:
        return len(self.postings)

    @cached_property
    def widths(self) -> tuple[int, ...]:
        """Return the largest code of each level + 1."""
        return tuple(int(codes.max()) + 1 if len(codes) else 1 for codes in self.trie.codes)

    @cached_property
    def first(self) -> Tensor:
        """(widths[0],) int32: the live node of level 0 that each code leads to, or −1."""
        table = self._nodes(0).new_full((self.widths[0],), -1)
        return table.scatter_(0, self.trie.codes[0].long(), self._nodes(0))

    @cached_property
    def second(self) -> Tensor | None:
        """(n_0 + 1, widths[1]) int32: the live children of every node of level 0 by code, −1 where
        there is none and in the last row; None if the table would be larger than 16 MB."""
        parents_count, width = len(self.trie.codes[0]), self.widths[1]
        if parents_count * width > LARGEST_TABLE:
            return None
        table = self._nodes(1).new_full((parents_count + 1, width), -1)
        parents = torch.repeat_interleave(self.trie.offsets[0].diff())
        table[parents, self.trie.codes[1].long()] = self._nodes(1)
        return table

    def _nodes(self, level: int) -> Tensor:
        """(n_level,) int32: the nodes' own numbers, −1 for those with no live row below."""
        codes = self.trie.codes[level]
        nodes = torch.arange(len(codes), dtype=torch.int32, device=codes.device)
        return nodes if self.counts is None else nodes.masked_fill_(self.counts[level] == 0, -1)

    def group_ranges(self, leaves: Tensor) -> tuple[Tensor, Tensor]:
        """Return where each leaf's code group begins and ends in ``postings``: int64 in the shape
        of ``leaves``; both 0 for leaf −1."""
        leaf = leaves.clamp_min(0)
        ends = torch.stack([self.group_offsets[leaf], self.group_offsets[leaf + 1]]).long()
        first, end = ends.masked_fill(leaves < 0, 0)
        return first, end


def keep_all(trie: Trie) -> LiveTrie:
    """Return the trie with all its rows."""
    return LiveTrie(trie, None, trie.offsets[-1], trie.postings)


def keep_rows(trie: Trie, mask: Tensor) -> LiveTrie:
    """Return the trie with the rows where ``mask`` (N,) bool is true. Time: a few passes over N."""
    if not mask.any():
        none = torch.zeros_like(trie.offsets[-1])
        counts = tuple(torch.zeros_like(codes, dtype=torch.int32) for codes in trie.codes)
        return LiveTrie(trie, counts, none, trie.postings[:0])
    taken = mask[trie.postings]  # (N,) in the trie's order
    before = torch.zeros(len(taken) + 1, dtype=torch.int32, device=taken.device)
    torch.cumsum(taken, 0, dtype=torch.int32, out=before[1:])
    group_offsets = before[trie.offsets[-1]]
    return LiveTrie(trie, _counts(trie, group_offsets), group_offsets, trie.postings[taken])


def drop_rows(live: LiveTrie, rows: Tensor) -> LiveTrie:
    """Return ``live`` without ``rows`` (d,) int64, which are distinct and live; all on the CPU.
    Equals ``keep_rows`` of the rest. Time: a few sequential passes over memory."""
    if not len(rows):
        return live
    dropped = _positions(live, rows)
    leaves = torch.searchsorted(live.group_offsets, dropped, right=True) - 1
    lost = torch.zeros_like(live.group_offsets)
    lost.index_add_(0, leaves + 1, torch.ones_like(dropped, dtype=lost.dtype))
    group_offsets = live.group_offsets - lost.cumsum(0, dtype=lost.dtype)
    postings = torch.from_numpy(np.delete(live.postings.numpy(), dropped.numpy()))
    return LiveTrie(live.trie, _counts(live.trie, group_offsets), group_offsets, postings)


def _positions(live: LiveTrie, rows: Tensor) -> Tensor:
    """Return the positions (d,) int64 of ``rows`` in ``live.postings``, by binary search in the
    trie's order."""
    positions = live.trie.positions
    targets = positions[rows]
    low, high = torch.zeros_like(rows), torch.full_like(rows, len(live))
    while (low < high).any():
        middle = (low + high) // 2
        before = positions[live.postings[middle]] < targets
        low, high = torch.where(before, middle + 1, low), torch.where(before, high, middle)
    return low


def _counts(trie: Trie, group_offsets: Tensor) -> tuple[Tensor, ...]:
    """Return the live rows below each node of each level."""
    starts = group_offsets  # live rows before each node
    counts = [starts.diff()]
    for offsets in reversed(trie.offsets[:-1]):
        starts = starts[offsets]
        counts.append(starts.diff())
    return tuple(counts[::-1])
