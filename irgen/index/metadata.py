"""Metadata columns of an index: the types it stores, and the forms in which it stores them.

The base keeps columns as an Arrow file. The changes keep a JSON list per image: days and
microseconds as integers, decimals as text, bytes as Latin-1 text.
"""

import json
import math
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import polars as pl
from polars.exceptions import PolarsError

from irgen.catalog.columns import METADATA, stored_type
from irgen.errors import IndexingError

ID = "id"
# Columns that the pipeline and ``irgen add`` fill in; METADATA names the user's in a filter:
OURS = (ID, "label", "path", "sha256", "width", "height", METADATA)


def check_columns(table: pl.DataFrame) -> pl.DataFrame:
    """Return the metadata of a new index, without the ids, in the types that it stores. Raise
    IndexingError for a column of a type that it cannot store."""
    columns = table.drop(ID)
    for name, kind in columns.schema.items():
        stored = stored_type(kind)
        if stored is None:
            raise IndexingError(
                f"column {name!r} is of type {kind}, which an index cannot store: convert it to "
                "text, numbers, booleans, dates, times, or lists or structs of these"
            )
        columns = columns.with_columns(pl.col(name).cast(stored))
    return columns


def join_columns(columns: Sequence[pl.Series]) -> pl.DataFrame:
    """Return a table of columns. One whose name is empty keeps it."""
    return pl.DataFrame({column.name: column for column in columns})


def complete(columns: pl.DataFrame | None, count: int, schema: pl.Schema) -> pl.DataFrame:
    """Return the metadata of ``count`` images with exactly the columns and types of ``schema``;
    columns that are missing become null.

    Raise IndexingError for an unknown column, one whose values do not fit, or another number of
    rows.
    """
    if columns is None:
        columns = pl.DataFrame()
    elif columns.height != count:
        raise IndexingError(f"metadata has {columns.height:,} rows for {count:,} ids")
    unknown = [name for name in columns.columns if name not in schema]
    if unknown:
        raise IndexingError(_describe_unknown(unknown[0], schema))
    return join_columns(
        [
            _cast(columns[name], kind)
            if name in columns.columns
            else pl.Series(name, [None], dtype=kind).new_from_index(0, count)
            for name, kind in schema.items()
        ]
    )


def nan_as_null(values: pl.Expr, kind: pl.DataType) -> pl.Expr:
    """Return ``values`` of type ``kind`` with null for NaN, in lists and structs, too: a number
    that is missing is missing, however it was written."""
    if kind.is_float():
        return values.fill_nan(None)
    if isinstance(kind, pl.List) and _has(kind, _is_float):
        return values.list.eval(nan_as_null(pl.element(), kind.inner))  # type: ignore[arg-type]
    if isinstance(kind, pl.Struct) and _has(kind, _is_float):
        fields = [(field.name, field.dtype) for field in kind.fields]
        return values.struct.with_fields(nan_as_null(pl.field(n), k) for n, k in fields)  # type: ignore[arg-type]
    return values


def _describe_unknown(name: str, schema: pl.Schema) -> str:
    if name == ID:
        return "metadata has a column 'id': ids are an argument of their own, drop it"
    columns = ", ".join(map(repr, schema)) or "none"
    near = get_close_matches(name, list(schema), 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"metadata has a column {name!r} that the index does not have (it has {columns}){hint}"


def _cast(values: pl.Series, kind: pl.DataType) -> pl.Series:
    if values.dtype != kind and not _is_compatible(values.dtype, kind):
        raise IndexingError(
            f"metadata column {values.name!r} is of type {values.dtype}, the index stores {kind}"
        )
    try:
        return values.cast(kind)
    except PolarsError as error:
        reason = str(error).splitlines()[0]
        raise IndexingError(
            f"metadata column {values.name!r} does not fit the index's {kind}: {reason}"
        ) from None


def _is_compatible(given: pl.DataType, kind: pl.DataType) -> bool:
    """Tell whether values keep their meaning in the other type; one may still be too large."""
    if isinstance(given, pl.List) and isinstance(kind, pl.List):
        return _is_compatible(given.inner, kind.inner)  # type: ignore[arg-type]
    if isinstance(given, pl.Datetime) and isinstance(kind, pl.Datetime):
        return given.time_zone == kind.time_zone
    return (
        given == kind
        or isinstance(given, pl.Null)
        or stored_type(given) == kind
        or (given.is_integer() and (kind.is_integer() or kind.is_float()))
        or (given.is_float() and kind.is_float())
        or (isinstance(given, pl.Duration) and isinstance(kind, pl.Duration))
    )


def write_arrow(path: Path, table: pl.DataFrame) -> None:
    """Write a table as an Arrow IPC file whose bytes depend on its values alone.

    Polars leaves traces of a column's history in padding, under nulls and in chunks. So columns are
    rebuilt from their values.
    """
    join_columns([_rebuild(column) for column in table]).write_ipc(
        path, compat_level=pl.CompatLevel.oldest(), record_batch_size=max(1, table.height)
    )


def _rebuild(column: pl.Series) -> pl.Series:
    plain = column.cast(_json_type(column.dtype))
    return pl.Series(column.name, plain.to_list(), dtype=plain.dtype).cast(column.dtype)


def as_plain(value: Any) -> Any:
    """Convert a value to plain JSON values: bytes to hex, dates and times to ISO text, numbers that
    are not finite to None.

    >>> as_plain({"a": (1, float("nan")), "b": b"\\x00"})
    {'a': [1, None], 'b': '00'}
    """
    if isinstance(value, dict):
        return {name: as_plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, bytes):
        return value.hex()
    return value if isinstance(value, (str, int, float, type(None))) else str(value)


def to_json(table: pl.DataFrame) -> list[str]:
    """Return a JSON list of each row's values, without the id, which is the first column.

    >>> to_json(pl.DataFrame({"id": ["a"], "label": ["shirt"], "price": [2.5]}))
    ['["shirt", 2.5]']
    """
    rows = table.cast({name: _json_type(kind) for name, kind in table.schema.items()}).rows()
    return [json.dumps(row[1:], default=lambda value: value.decode("latin-1")) for row in rows]


def from_json(ids: Sequence[str], texts: Sequence[str], schema: pl.Schema) -> pl.DataFrame:
    """Return the table of ids and metadata that ``to_json`` turned into ``texts``; ``schema`` has
    the metadata columns."""
    rows = json.loads(f"[{','.join(texts)}]")
    values = list(map(list, zip(*rows, strict=True))) or [[] for _ in schema]
    columns = [pl.Series(ID, ids, dtype=pl.String)]
    for (name, kind), column in zip(schema.items(), values, strict=True):
        values = (
            [_restore_bytes(value, kind) for value in column] if _has(kind, _is_bytes) else column
        )
        columns.append(pl.Series(name, values, dtype=_json_type(kind)).cast(kind))
    return join_columns(columns)


def _json_type(kind: pl.DataType) -> pl.DataType:
    """Return the type in which values of type ``kind`` go into JSON; bytes become text later."""
    if isinstance(kind, pl.List):
        return pl.List(_json_type(kind.inner))  # type: ignore[arg-type]
    if isinstance(kind, pl.Struct):
        return pl.Struct({field.name: _json_type(field.dtype) for field in kind.fields})  # type: ignore[arg-type]
    return (
        pl.String() if isinstance(kind, pl.Decimal) else pl.Series(dtype=kind).to_physical().dtype
    )


def _is_float(kind: pl.DataType) -> bool:
    return kind.is_float()


def _is_bytes(kind: pl.DataType) -> bool:
    return isinstance(kind, pl.Binary)


def _has(kind: pl.DataType, test: Callable[[pl.DataType], bool]) -> bool:
    """Tell whether a type, or one inside of it, passes the test."""
    inner = [kind.inner] if isinstance(kind, pl.List) else []
    if isinstance(kind, pl.Struct):
        inner = [field.dtype for field in kind.fields]
    return test(kind) or any(_has(part, test) for part in inner)  # type: ignore[arg-type]


def _restore_bytes(value: Any, kind: pl.DataType) -> Any:
    """Return a value of JSON with its bytes, which were Latin-1 text."""
    if value is None:
        return None
    if isinstance(kind, pl.List):
        return [_restore_bytes(item, kind.inner) for item in value]  # type: ignore[arg-type]
    if isinstance(kind, pl.Struct):
        return {f.name: _restore_bytes(value[f.name], f.dtype) for f in kind.fields}  # type: ignore[arg-type]
    return value.encode("latin-1") if kind == pl.Binary() else value
