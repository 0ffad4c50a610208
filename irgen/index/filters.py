"""``allow``: which images a search may find, by their metadata or by their ids."""

from collections import OrderedDict
from collections.abc import Collection
from threading import Lock

import numpy as np
import polars as pl
import torch
from polars.exceptions import PolarsError
from torch import Tensor

from irgen.errors import IndexingError
from irgen.index.metadata import ID
from irgen.index.view import View
from irgen.search.snapshot import Snapshot

Allow = pl.Expr | Collection[str]
REMEMBERED = 8  # filtered snapshots


def parse(text: str) -> pl.Expr:
    """Return a filter written as SQL, such as ``label = 'shirt' AND width > 200``, as an
    expression. Raise IndexingError if it is none."""
    try:
        return pl.sql_expr(text)
    except PolarsError as error:
        reason = " ".join(str(error).split())[:200]
        raise IndexingError(f"the filter {text!r} cannot be read: {reason}") from None


def allowed_rows(allow: Allow, view: View) -> Tensor:
    """Return a mask (rows,) bool of the rows of ``view`` that are alive and that ``allow`` lets
    through.

    ``allow`` is a polars expression over ``id`` and the metadata columns, which is evaluated over
    the images in the index; null counts as false. Or it is a collection of ids; those that are not
    in the index are ignored. Raise IndexingError for an expression that fails or does not give one
    boolean per image.
    """
    if isinstance(allow, str):
        raise IndexingError(f"allow: expected a list or set of ids, found the one id {allow!r}")
    mask = torch.zeros(view.snapshot.rows, dtype=torch.bool)
    if isinstance(allow, pl.Expr):
        alive = torch.cat(view.snapshot.alive)
        mask[alive] = torch.from_numpy(_evaluate(allow, view, alive.numpy()))
    else:
        rows = view.find(list(allow))
        mask[torch.from_numpy(rows[rows >= 0])] = True
    return mask


def _evaluate(expression: pl.Expr, view: View, alive: np.ndarray) -> np.ndarray:
    """Return the value (n,) bool of an expression for the n rows that are ``alive`` (rows,)."""
    table = view.table.lazy()
    if not alive.all():
        table = table.filter(pl.Series(alive))
    try:
        values = table.select(expression.alias("allow")).collect()["allow"]
    except PolarsError as error:
        reason = " ".join(str(error).split()).partition("; valid columns")[0][:160]
        columns = ", ".join([ID, *view.schema])
        raise IndexingError(f"allow: {reason}; the columns are {columns}") from None
    if values.dtype != pl.Boolean or len(values) != len(view):
        raise IndexingError(
            f"allow: expected true or false for each of {len(view):,} images, found "
            f"{len(values):,} of type {values.dtype}"
        )
    return values.fill_null(False).to_numpy(writable=True)


class Snapshots:
    """Snapshots of views on the ``device`` of the search, whole and filtered. The last whole one
    and those of the last filters are remembered."""

    def __init__(self, device: torch.device):
        self.device, self._lock = device, Lock()
        self._moved: tuple[View, Snapshot] | None = None
        self._filtered: OrderedDict[bytes, tuple[View, Snapshot]] = OrderedDict()

    def of(self, view: View, allow: Allow | None = None) -> Snapshot:
        """Return the snapshot of the images that may be found. Raise IndexingError for a filter
        that fails."""
        whole = self._move(view)
        if allow is None:
            return whole
        if not isinstance(allow, pl.Expr):
            return whole.keep_allowed(allowed_rows(allow, view).to(self.device))
        key = allow.meta.serialize()
        with self._lock:
            of, snapshot = self._filtered.get(key, (None, whole))
        if of is not view:
            snapshot = whole.keep_allowed(allowed_rows(allow, view).to(self.device))
        with self._lock:
            self._filtered[key] = view, snapshot
            self._filtered.move_to_end(key)
            while len(self._filtered) > REMEMBERED:
                self._filtered.popitem(last=False)
        return snapshot

    def _move(self, view: View) -> Snapshot:
        if self.device.type == "cpu":
            return view.snapshot
        moved = self._moved
        if moved is None or moved[0] is not view:
            self._moved = moved = (view, view.snapshot.to(self.device))
        return moved[1]
