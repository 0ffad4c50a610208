"""``allow`` and ``words``: which images a search may find, by metadata, ids or words."""

from collections import OrderedDict
from collections.abc import Collection
from threading import Lock

import numpy as np
import polars as pl
import torch
from polars.exceptions import PanicException, PolarsError
from torch import Tensor

from irgen.catalog.columns import METADATA, join_fields
from irgen.errors import IndexingError
from irgen.index.metadata import ID, OURS, nan_as_null
from irgen.index.sql import check_sql, clip
from irgen.index.view import View
from irgen.index.words import WordSearch
from irgen.search.snapshot import Snapshot

Allow = str | pl.Expr | Collection[str]
Key = tuple[str | bytes | None, str | None]  # an expression as bytes, and words
REMEMBERED = 8  # filtered snapshots
SHOWN = 20  # columns that a message names


def allowed_rows(allow: Allow, view: View) -> Tensor:
    """Return a mask (rows,) bool of the rows of ``view`` that are alive and that ``allow`` lets
    through.

    ``allow`` is SQL or a polars expression over ``id`` and the metadata columns, which is evaluated
    over the images in the index; null counts as false, and NaN is null. ``metadata.NAME`` is the
    user's column of that name. Or ``allow`` is a collection of ids; those that are not in the index
    are ignored. Raise IndexingError for an expression that fails or does not give one boolean per
    image.
    """
    mask = torch.zeros(view.snapshot.rows, dtype=torch.bool)
    if isinstance(allow, (str, pl.Expr)):
        alive = torch.cat(view.snapshot.alive)
        mask[alive] = torch.from_numpy(_evaluate(allow, view, alive.numpy()))
    else:
        rows = view.find(list(allow))
        mask[torch.from_numpy(rows[rows >= 0])] = True
    return mask


def _evaluate(allow: str | pl.Expr, view: View, alive: np.ndarray) -> np.ndarray:
    """Return the value (n,) bool of a filter for the n rows that are ``alive`` (rows,)."""
    table = view.table.lazy()
    if not alive.all():
        table = table.filter(pl.Series(alive))
    table = table.with_columns(
        nan_as_null(pl.col(name), kind) for name, kind in view.schema.items()
    )
    user_columns = [name for name in view.schema if name not in OURS]
    if user_columns and METADATA not in view.schema:
        table = table.with_columns(join_fields(user_columns, OURS))
    try:
        if isinstance(allow, str):  # SQL over a table reads '2026-01-31' as a date where it is one
            selected = table.sql(f"SELECT ({check_sql(allow)}\n) AS allow FROM self")
        else:
            selected = table.select(allow.alias("allow"))
        values = selected.collect()["allow"]
    except (PolarsError, PanicException) as error:
        reason = clip(str(error).partition("; valid columns")[0], 160)
        raise IndexingError(
            f"the filter cannot be used: {reason}; {_describe_columns(view)}"
        ) from None
    if values.dtype != pl.Boolean or len(values) != len(view):
        raise IndexingError(
            f"the filter: expected true or false for each of {len(view):,} images, found "
            f"{len(values):,} of type {values.dtype}"
        )
    return values.fill_null(False).to_numpy(writable=True)


def _describe_columns(view: View) -> str:
    names = [ID, *view.schema]
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return f"the columns are {', '.join(names[:SHOWN])}{more} (irgen info has their types)"


class Snapshots:
    """Snapshots of views on the ``device`` of the search, whole and filtered. The last whole one
    and those of the last filters are remembered."""

    def __init__(self, device: torch.device, word_search: WordSearch):
        self.device, self._lock, self._word_search = device, Lock(), word_search
        self._moved: tuple[View, Snapshot] | None = None
        self._filtered: OrderedDict[Key, tuple[View, Snapshot]] = OrderedDict()

    def of(self, view: View, allow: Allow | None = None, words: str | None = None) -> Snapshot:
        """Return the snapshot of the images that may be found. Raise IndexingError for a filter or
        words that fail."""
        whole = self._move(view)
        if allow is None and words is None:
            return whole
        if not isinstance(allow, str | pl.Expr | None):  # a collection of ids, which may be long
            return self._filter(view, allow, words)
        key = (allow.meta.serialize() if isinstance(allow, pl.Expr) else allow, words)
        with self._lock:
            of, snapshot = self._filtered.get(key, (None, whole))
        if of is not view:
            snapshot = self._filter(view, allow, words)
        with self._lock:
            self._filtered[key] = view, snapshot
            self._filtered.move_to_end(key)
            while len(self._filtered) > REMEMBERED:
                self._filtered.popitem(last=False)
        return snapshot

    def _filter(self, view: View, allow: Allow | None, words: str | None) -> Snapshot:
        allowed = torch.ones(view.snapshot.rows, dtype=torch.bool)
        if words is not None:
            allowed.zero_()[torch.from_numpy(self._word_search.find(view, words))] = True
        if allow is not None:
            allowed &= allowed_rows(allow, view)
        return self._move(view).keep_allowed(allowed.to(self.device))

    def _move(self, view: View) -> Snapshot:
        if self.device.type == "cpu":
            return view.snapshot
        moved = self._moved
        if moved is None or moved[0] is not view:
            self._moved = moved = (view, view.snapshot.to(self.device))
        return moved[1]
