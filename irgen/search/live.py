"""Which of a trie's rows take part in a search, as live counts per node.

Deletions and filters never touch the trie: they are one of these beside it.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from irgen.search.trie import Trie

TABLE = 1 << 22  # most places of a dense table of children


@dataclass(frozen=True)
class Live:
    """A trie and the rows of it that take part.

    ``counts[m]`` (n_m,) int32: live rows below each node of level m, or None where all rows take
    part. ``postings`` (n,) int32: the live rows in the trie's order; the bucket of leaf j is places
    ``buckets[j]`` up to ``buckets[j + 1]`` of it, ``buckets`` (n_{M−1} + 1,) int32.
    """

    trie: Trie
    counts: tuple[Tensor, ...] | None
    buckets: Tensor
    postings: Tensor

    def __len__(self) -> int:
        return len(self.postings)

    @cached_property
    def widths(self) -> tuple[int, ...]:
        """The largest code of each level + 1."""
        return tuple(int(e.max()) + 1 if len(e) else 1 for e in self.trie.entries)

    @cached_property
    def first(self) -> Tensor:
        """(widths[0],) int32: the live node of level 0 that each code leads to, or −1."""
        entries = self.trie.entries[0].long()
        table = self._nodes(0).new_full((self.widths[0],), -1)
        return table.scatter_(0, entries, self._nodes(0))

    @cached_property
    def second(self) -> Tensor | None:
        """(n_0 + 1, widths[1]) int32: the live children of every node of level 0 by code, −1 where
        there is none and in the last row; None where that table would be larger than 16 MB."""
        above, width = len(self.trie.entries[0]), self.widths[1]
        if above * width > TABLE:
            return None
        table = self._nodes(1).new_full((above + 1, width), -1)
        parents = torch.repeat_interleave(self.trie.offsets[0].diff())
        table[parents, self.trie.entries[1].long()] = self._nodes(1)
        return table

    def _nodes(self, level: int) -> Tensor:
        """(n_level,) int32: the nodes' own numbers, −1 for those with no live row below."""
        entries = self.trie.entries[level]
        nodes = torch.arange(len(entries), dtype=torch.int32, device=entries.device)
        return nodes if self.counts is None else nodes.masked_fill_(self.counts[level] == 0, -1)


def everything(trie: Trie) -> Live:
    """All rows of the trie."""
    return Live(trie, None, trie.offsets[-1], trie.postings)


def only(trie: Trie, mask: Tensor) -> Live:
    """The rows where ``mask`` (N,) bool is true. Time: a few passes over N."""
    if not mask.any():
        none = torch.zeros_like(trie.offsets[-1])
        counts = tuple(torch.zeros_like(e, dtype=torch.int32) for e in trie.entries)
        return Live(trie, counts, none, trie.postings[:0])
    taken = mask[trie.postings]  # (N,) in the trie's order
    before = torch.zeros(len(taken) + 1, dtype=torch.int32, device=taken.device)
    torch.cumsum(taken, 0, dtype=torch.int32, out=before[1:])
    buckets = before[trie.offsets[-1]]
    return Live(trie, _counts(trie, buckets), buckets, trie.postings[taken])


def without(part: Live, rows: Tensor) -> Live:
    """What ``only`` gives of ``part`` less ``rows`` (d,) int64, which are distinct and take part in
    it; all on the CPU. Time: a few passes over memory that lies in order."""
    if not len(rows):
        return part
    gone = _standing(part, rows)
    leaves = torch.searchsorted(part.buckets, gone, right=True) - 1
    lost = torch.zeros_like(part.buckets)
    lost.index_add_(0, leaves + 1, torch.ones_like(gone, dtype=lost.dtype))
    buckets = part.buckets - lost.cumsum(0, dtype=lost.dtype)
    left = torch.from_numpy(np.delete(part.postings.numpy(), gone.numpy()))
    return Live(part.trie, _counts(part.trie, buckets), buckets, left)


def _standing(part: Live, rows: Tensor) -> Tensor:
    """Where ``rows`` (d,) stand in ``part.postings``, (d,) int64. Those are in the trie's order."""
    places = part.trie.places
    wanted = places[rows]
    low, high = torch.zeros_like(rows), torch.full_like(rows, len(part))
    while (low < high).any():
        middle = (low + high) // 2
        before = places[part.postings[middle]] < wanted
        low, high = torch.where(before, middle + 1, low), torch.where(before, high, middle)
    return low


def _counts(trie: Trie, buckets: Tensor) -> tuple[Tensor, ...]:
    """Live rows below each node of each level, from where the leaves' buckets begin and end."""
    starts = buckets  # live rows before each node
    below = [starts.diff()]
    for offsets in reversed(trie.offsets[:-1]):
        starts = starts[offsets]
        below.append(starts.diff())
    return tuple(below[::-1])
