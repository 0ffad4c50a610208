"""Show the code tree of an index: branches below a prefix, with sample pictures."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from irgen.errors import IndexingError
from irgen.index.index import Index
from irgen.index.networks import QueryImage
from irgen.index.view import View
from irgen.search.trace import trace


@dataclass(frozen=True)
class Branch:
    """Images whose codes begin with ``prefix``: their number, and ids of some of them.

    ``probability``: of the prefix for a query, None without one."""

    prefix: tuple[int, ...]
    images: int
    samples: list[str]
    probability: float | None = None


def parse_prefix(text: str) -> tuple[int, ...]:
    """Return codes written as ``17-203``. Raise IndexingError if they are not.

    >>> parse_prefix("17-203"), parse_prefix("")
    ((17, 203), ())
    """
    parts = [part for part in text.split("-") if part]
    if all(re.fullmatch("[0-9]{1,9}", part) for part in parts):
        return tuple(map(int, parts))
    raise IndexingError(f"{text!r} is no code prefix; expected numbers, as in 17-203")


def format_prefix(prefix: Sequence[int]) -> str:
    """Return codes as ``parse_prefix`` reads them."""
    return "-".join(map(str, prefix))


def list_branches(view: View, prefix: Sequence[int], samples: int) -> list[Branch]:
    """Return the branches one level below ``prefix``, the largest first; below a whole code, that
    code itself. Time: a pass over the codes. Raise IndexingError if no image has the prefix."""
    rows, codes = _select(*_read_codes(view), prefix)
    if not len(rows):
        raise IndexingError(f"no image has a code that begins with {format_prefix(prefix)}")
    level = len(prefix)
    if level == codes.shape[1]:
        return [_make_branch(view, tuple(prefix), rows, samples)]
    values, counts = codes[:, level].unique(return_counts=True)
    order = counts.argsort(descending=True, stable=True)
    return [
        _make_branch(view, (*prefix, value), rows[codes[:, level] == value], samples)
        for value in values[order].tolist()
    ]


def trace_query(
    index: Index, query: QueryImage, width: int, shown: int, samples: int
) -> list[list[Branch]]:
    """Return, level by level, the ``shown`` likeliest prefixes that the beam search of a query
    keeps: pixels (C, H, W) uint8, or features."""
    index.refresh()
    view = index.view
    state = index.start_decoding(query)
    parts = [part.live for part in index.snapshot(view).live_parts(fresh=False)]
    rows, all_codes = _read_codes(view)
    levels = []
    for level in trace(state, parts, width):
        branches = (
            _make_branch(view, prefix.codes, own_rows, samples, prefix.log_probability)
            for prefix in level
            if len(own_rows := _select(rows, all_codes, prefix.codes)[0])
        )
        levels.append(list(islice(branches, shown)))
    return levels


def _read_codes(view: View) -> tuple[Tensor, Tensor]:
    """Return rows (n,) and codes (n, M) of all images."""
    rows = view.snapshot.alive_rows()
    return rows, view.snapshot.gather(rows, "codes").long()


def _select(rows: Tensor, codes: Tensor, prefix: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return those of rows (n,) and codes (n, M) that have a prefix. Raise IndexingError if it is
    too long."""
    wanted = torch.tensor(list(prefix), dtype=torch.int64)
    if len(wanted) > codes.shape[1]:
        raise IndexingError(f"a code has {codes.shape[1]} numbers, not {len(wanted)}")
    kept = (codes[:, : len(wanted)] == wanted).all(1)
    return rows[kept], codes[kept]


def _make_branch(
    view: View,
    prefix: tuple[int, ...],
    rows: Tensor,
    samples: int,
    log_probability: float | None = None,
) -> Branch:
    step = max(1, len(rows) // samples)  # spread over the branch, not its first images alone
    chosen = rows[::step][:samples]
    probability = None if log_probability is None else math.exp(log_probability)
    return Branch(prefix, len(rows), view.ids(chosen.numpy()), probability)
