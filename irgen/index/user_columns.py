"""Metadata that users give for new images: their values in the types of the index's columns."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
from polars.exceptions import PolarsError

from irgen.catalog.column_types import convert, describe
from irgen.catalog.columns import PREFIX
from irgen.errors import IndexingError
from irgen.index.decoded_image import FILE_COLUMNS
from irgen.index.metadata import complete, join_columns
from irgen.index.rows import shorten


def fit_column(values: pl.Series, kind: pl.DataType, source: str) -> pl.Series:
    """Return values, such as texts of a CSV, in the type of the index's column. ``source`` is where
    they come from. Raise IndexingError if one does not fit."""
    fitting, others = convert(values, kind)
    if len(others):
        raise _misfit(source, values.name, kind, shorten(others.to_list()))
    return fitting


def fit_rows(rows: Sequence[Mapping[str, Any]], schema: pl.Schema, source: str) -> pl.DataFrame:
    """Return JSON values of some images, column by name, as a table in the types of ``schema``;
    what a row lacks is null. Dates and times are ISO texts.

    Raise IndexingError for a column that the index lacks or fills in itself, or for a value that
    does not fit.
    """
    names = dict.fromkeys(name for row in rows for name in row)
    if filled := [name for name in names if name in FILE_COLUMNS]:
        raise IndexingError(
            f"{source}: {filled[0]!r} is filled in from the file: leave it out; a column of yours "
            f"with that name is {PREFIX + filled[0]!r}"
        )
    columns = [
        _fit_values(name, [row.get(name) for row in rows], schema[name], source)
        if name in schema
        else pl.Series(name, [None] * len(rows))  # ``complete`` says what there is
        for name in names
    ]
    if columns:
        complete(join_columns(columns), len(rows), schema)
    return join_columns(columns)


def _fit_values(name: str, values: list[Any], kind: pl.DataType, source: str) -> pl.Series:
    """Return JSON values of one column in its type."""
    present = [value for value in values if value is not None]
    is_simple = not any(isinstance(value, (list, dict)) for value in present)
    try:
        if kind.is_nested():
            return pl.Series(name, values, kind, strict=True)
        if is_simple:
            return fit_column(pl.Series(name, values, strict=False), kind, source)
    except (PolarsError, TypeError, ValueError, OverflowError):
        pass  # Polars says it in its own words
    raise _misfit(source, name, kind, shorten(present))


def _misfit(source: str, name: str, kind: pl.DataType, values: str) -> IndexingError:
    return IndexingError(
        f"{source}: column {name!r} of the index holds {describe(kind)}, and not {values}: "
        "correct such values, or leave them empty"
    )
