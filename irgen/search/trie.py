"""The trie of a database's identifiers, as plain arrays."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Trie:
    """Every distinct prefix is a node; nodes of a level are sorted by prefix.

    ``entries[m]`` (n_m,) int32: the last code of each node of level m (0 … M−1).
    ``offsets[m]`` (n_m + 1,) int64: the children of node j are nodes ``offsets[m][j]`` up to
    ``offsets[m][j + 1]`` of level m + 1; at the last level they are places of ``postings``.
    ``postings`` (N,) int64: database rows sorted by code, then by row, so that a leaf is one range.
    ``fanout[m]``: the most children a node of level m − 1 has (``fanout[0]``: nodes of level 0).
    """

    entries: tuple[Tensor, ...]
    offsets: tuple[Tensor, ...]
    postings: Tensor
    fanout: tuple[int, ...]

    @property
    def levels(self) -> int:
        """M."""
        return len(self.entries)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays together."""
        return sum(t.nbytes for t in (*self.entries, *self.offsets, self.postings))

    def to(self, device: torch.device) -> "Trie":
        """The same trie with its arrays on ``device``."""
        return Trie(
            tuple(t.to(device) for t in self.entries),
            tuple(t.to(device) for t in self.offsets),
            self.postings.to(device),
            self.fanout,
        )


def build(codes: Tensor) -> Trie:
    """The trie of ``codes`` (N, M) of non-negative integers, N ≥ 1. Time: one sort of N keys."""
    assert codes.ndim == 2 and len(codes) > 0, "a trie needs at least one code"
    postings = _sort(codes)
    ordered = codes[postings]  # (N, M)
    count, levels = ordered.shape
    starts = torch.zeros(count, dtype=torch.bool)  # where a new prefix of the level begins
    starts[0] = True
    firsts = []
    for level in range(levels):
        starts[1:] |= ordered[1:, level] != ordered[:-1, level]
        firsts.append(torch.nonzero(starts).flatten())  # (n_level,) places in ``ordered``
    entries = tuple(ordered[first, m].to(torch.int32) for m, first in enumerate(firsts))
    offsets = []
    for level, first in enumerate(firsts):
        below = torch.arange(count) if level + 1 == levels else firsts[level + 1]
        ends = torch.cat([first, torch.tensor([count])])
        offsets.append(torch.searchsorted(below, ends))
    fanout = (len(entries[0]), *(int(o.diff().max()) for o in offsets[:-1]))
    return Trie(entries, tuple(offsets), postings, fanout)


def _sort(codes: Tensor) -> Tensor:
    """Row numbers (N,) in order of code, equal codes in order of row."""
    bits = max(1, int(codes.max()).bit_length())
    if bits * codes.shape[1] <= 62:  # one packed key a row
        packed = codes[:, 0].long()
        for level in range(1, codes.shape[1]):
            packed = (packed << bits) | codes[:, level]
        return torch.argsort(packed, stable=True)
    order = torch.arange(len(codes))
    for level in reversed(range(codes.shape[1])):
        order = order[torch.argsort(codes[order, level], stable=True)]
    return order


def codes_of(trie: Trie) -> Tensor:
    """The code of every leaf, in order: (n_{M−1}, M) int64; the inverse of ``build`` up to rows."""
    columns: list[Tensor] = []
    ancestors = torch.arange(len(trie.entries[-1]))  # each leaf's node of the level at hand
    for level in reversed(range(trie.levels)):
        if columns:
            nodes = torch.arange(len(trie.entries[level]))
            ancestors = torch.repeat_interleave(nodes, trie.offsets[level].diff())[ancestors]
        columns.append(trie.entries[level][ancestors].long())
    return torch.stack(columns[::-1], dim=1)


def to_tensors(trie: Trie) -> dict[str, Tensor]:
    """The arrays by name, for a safetensors file."""
    named = {f"entries.{m}": t for m, t in enumerate(trie.entries)}
    named |= {f"offsets.{m}": t for m, t in enumerate(trie.offsets)}
    return named | {"postings": trie.postings, "fanout": torch.tensor(trie.fanout)}


def from_tensors(named: dict[str, Tensor]) -> Trie:
    """The inverse of ``to_tensors``."""
    levels = len(named["fanout"])
    return Trie(
        tuple(named[f"entries.{m}"] for m in range(levels)),
        tuple(named[f"offsets.{m}"] for m in range(levels)),
        named["postings"],
        tuple(named["fanout"].tolist()),
    )
