"""``allow``: which images a search may find, by their metadata or by their ids."""

from collections.abc import Collection

import numpy as np
import polars as pl
import torch
from polars.exceptions import PolarsError
from torch import Tensor

from irgen.errors import IndexingError
from irgen.index.items import ID
from irgen.index.view import View

Allow = pl.Expr | Collection[str]


def allowed(allow: Allow, view: View) -> Tensor:
    """(rows,) bool: the rows of ``view`` that ``allow`` lets through, none of them dead.

    A polars expression over ``id`` and the metadata columns, true for an image that may be found
    (null counts as false); it sees the images alive and no others. Or a collection of ids; those
    that are not in the index let nothing through. Raises IndexingError for an expression that
    cannot be worked out or does not give one truth value an image.
    """
    if isinstance(allow, str):
        raise IndexingError(f"allow: expected a list or set of ids, found the one id {allow!r}")
    alive = view.snapshot.alive_rows()
    mask = torch.zeros(view.snapshot.rows, dtype=torch.bool)
    if isinstance(allow, pl.Expr):
        mask[alive[torch.from_numpy(_true(allow, view, alive.numpy()))]] = True
    else:
        rows = view.find(list(allow))
        mask[torch.from_numpy(rows[rows >= 0])] = True
    return mask


def _true(expression: pl.Expr, view: View, alive: np.ndarray) -> np.ndarray:
    """Which of the rows ``alive`` (n,) an expression is true for, (n,) bool."""
    frame = view.items.frame
    if len(alive) < frame.height:
        frame = view.items.take(alive)
    try:
        found = frame.select(expression.alias("allow"))["allow"]
    except PolarsError as error:
        reason = " ".join(str(error).split()).partition("; valid columns")[0][:160]
        known = ", ".join([ID, *view.items.schema])
        raise IndexingError(f"allow: {reason}; the columns are {known}") from None
    if found.dtype != pl.Boolean or len(found) != len(alive):
        raise IndexingError(
            f"allow: expected true or false for each of {len(alive):,} images, found "
            f"{len(found):,} of type {found.dtype}"
        )
    return found.fill_null(False).to_numpy()


def parsed(text: str) -> pl.Expr:
    """A filter written as SQL, such as ``label = 'shirt' AND width > 200``, as an expression.
    Raises IndexingError if it is not one."""
    try:
        return pl.sql_expr(text)
    except PolarsError as error:
        reason = " ".join(str(error).split())[:200]
        raise IndexingError(f"the filter {text!r} cannot be read: {reason}") from None
