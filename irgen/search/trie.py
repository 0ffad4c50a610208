"""Build the trie of a database's code sequences, as plain arrays."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Trie:
    """Every distinct prefix is a node; nodes of a level are sorted by prefix.

    ``codes[m]`` (n_m,) uint8, int16 or int32: the last code of each node of level m (0 … M−1).
    ``offsets[m]`` (n_m + 1,) int32: the children of node j are nodes ``offsets[m][j]`` up to
    ``offsets[m][j + 1]`` of level m + 1; at the last level they are positions in ``postings``.
    ``postings`` (N,) int32: database rows sorted by code, so that a leaf is one range.
    ``fanout[m]``: the most children a node of level m − 1 has (``fanout[0]``: nodes of level 0).
    """

    codes: tuple[Tensor, ...]
    offsets: tuple[Tensor, ...]
    postings: Tensor
    fanout: tuple[int, ...]

    @property
    def levels(self) -> int:
        """M."""
        return len(self.codes)

    @property
    def nbytes(self) -> int:
        """Return the bytes of all arrays together."""
        return sum(t.nbytes for t in (*self.codes, *self.offsets, self.postings))

    @cached_property
    def positions(self) -> Tensor:
        """(N,) int32: the position of each row in ``postings``."""
        numbers = torch.arange(len(self.postings), dtype=torch.int32, device=self.postings.device)
        return torch.empty_like(numbers).scatter_(0, self.postings.long(), numbers)

    def to(self, device: torch.device) -> "Trie":
        """Return the trie with its arrays on ``device``."""
        return Trie(
            tuple(t.to(device) for t in self.codes),
            tuple(t.to(device) for t in self.offsets),
            self.postings.to(device),
            self.fanout,
        )


def build(codes: Tensor, ties: Tensor | None = None) -> Trie:
    """Build the trie of ``codes`` (N, M), non-negative integers, N < 2³¹. Time: one sort of N keys.

    Rows of one code sequence are in ascending order of ``ties`` (N,) integers, by default of row.
    """
    assert codes.ndim == 2 and codes.shape[1] > 0, "codes have N rows and M columns"
    postings = _sort(codes, ties)
    ordered = codes[postings].T.contiguous()  # (M, N)
    levels, count = ordered.shape
    starts = torch.zeros(count, dtype=torch.bool)  # where a new prefix of the level begins
    starts[:1] = True
    firsts = []
    for column in ordered:
        starts[1:] |= column[1:] != column[:-1]
        firsts.append(torch.nonzero(starts).flatten())  # (n_level,) columns of ``ordered``
    dtype = _narrowest_dtype(codes)
    node_codes = tuple(ordered[m][first].to(dtype) for m, first in enumerate(firsts))
    offsets = []
    for level, first in enumerate(firsts):
        ends = torch.cat([first, torch.tensor([count])])
        if level + 1 < levels:
            ends = torch.searchsorted(firsts[level + 1], ends)
        offsets.append(ends.to(torch.int32))
    widest = (int(o.diff().max()) if len(o) > 1 else 0 for o in offsets[:-1])
    return Trie(node_codes, tuple(offsets), postings.to(torch.int32), (len(firsts[0]), *widest))


def _narrowest_dtype(codes: Tensor) -> torch.dtype:
    """Return the smallest integer type that holds every code."""
    most = int(codes.max()) if codes.numel() else 0
    return torch.uint8 if most < 256 else torch.int16 if most < 32768 else torch.int32


def _sort(codes: Tensor, ties: Tensor | None) -> Tensor:
    """Return row numbers (N,) int64 in order of code, then of ``ties``, then of row."""
    rows = np.arange(len(codes)) if ties is None else np.argsort(ties.numpy(), kind="stable")
    size = max(1, int(codes.max()).bit_length()) if len(codes) else 1
    numbers = len(codes).bit_length()
    if size * codes.shape[1] + numbers > 63:  # does not fit in one key a row
        for column in reversed(codes.numpy().T):
            rows = rows[np.argsort(column[rows], kind="stable")]
        return torch.from_numpy(rows)
    keys = np.zeros(len(codes), dtype=np.int64)
    for column in codes.numpy().T:
        keys = (keys << size) | column
    if ties is not None:
        keys = keys[rows]
    keys = np.sort((keys << numbers) | np.arange(len(codes)))  # distinct, so any sort is stable
    return torch.from_numpy(rows[keys & ((1 << numbers) - 1)])


def codes_of(trie: Trie) -> Tensor:
    """Return the code sequence of every leaf, in order: (n_{M−1}, M) int64. It inverts ``build`` up
    to rows."""
    columns: list[Tensor] = []
    ancestors = torch.arange(len(trie.codes[-1]))  # each leaf's node of this level
    for level in reversed(range(trie.levels)):
        if columns:
            nodes = torch.arange(len(trie.codes[level]))
            ancestors = torch.repeat_interleave(nodes, trie.offsets[level].diff())[ancestors]
        columns.append(trie.codes[level][ancestors].long())
    return torch.stack(columns[::-1], dim=1)


def to_tensors(trie: Trie) -> dict[str, Tensor]:
    """Return the arrays by name, for a safetensors file."""
    named = {f"codes.{m}": t for m, t in enumerate(trie.codes)}
    named |= {f"offsets.{m}": t for m, t in enumerate(trie.offsets)}
    return named | {"postings": trie.postings, "fanout": torch.tensor(trie.fanout)}


def from_tensors(named: dict[str, Tensor]) -> Trie:
    """Invert ``to_tensors``."""
    levels = len(named["fanout"])
    return Trie(
        tuple(named[f"codes.{m}"] for m in range(levels)),
        tuple(named[f"offsets.{m}"] for m in range(levels)),
        named["postings"],
        tuple(named["fanout"].tolist()),
    )
