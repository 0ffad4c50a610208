"""Columns of the user: any name, any type that is kept, and apart from ours.

In memory they are the fields of one column, `metadata`, so no name meets one of ours. In files they
are plain columns; there a name that is also one of ours begins with `metadata.`.
"""

from collections.abc import Collection, Iterable

import polars as pl

METADATA = "metadata"
PREFIX = f"{METADATA}."
SIMPLE = (pl.String, pl.Boolean, pl.Binary)


def nest(table: pl.DataFrame, ours: Collection[str]) -> pl.DataFrame:
    """Return `table` with all columns but `ours` as the fields of the column `metadata`, which is
    absent if there are none.

    >>> nest(pl.DataFrame({"id": ["a"], "price": [2], "metadata.id": [3]}), ["id"]).row(0)
    ('a', {'price': 2, 'id': 3})
    """
    names = [name for name in table.columns if name not in ours]
    return table.select(pl.exclude(names), join_fields(names, ours)) if names else table


def flatten(table: pl.DataFrame, ours: Collection[str]) -> pl.DataFrame:
    """Return `table` with the fields of `metadata` as columns: undo `nest`.

    >>> both = pl.DataFrame({"id": ["a"], "metadata": [{"price": 2, "id": 3}]})
    >>> flatten(both, ["id"]).to_dicts()
    [{'id': 'a', 'price': 2, 'metadata.id': 3}]
    """
    if METADATA not in table.columns:
        return table
    fields = table[METADATA].struct.unnest()
    return table.drop(METADATA).hstack(fields.rename(lambda name: column_name(name, ours)))


def list_fields(table: pl.DataFrame) -> list[str]:
    """Return the names of the user's columns in `table`, whose column `metadata` may be absent."""
    kind = table.schema.get(METADATA)
    return [field.name for field in kind.fields] if isinstance(kind, pl.Struct) else []


def join_fields(columns: Iterable[str], ours: Collection[str]) -> pl.Expr:
    """Return the user's `columns` of a file as the one column `metadata`."""
    fields = {
        name: name.removeprefix(PREFIX) if _is_taken(name, ours) else name for name in columns
    }
    return pl.struct(pl.col(name).alias(field) for name, field in fields.items()).alias(METADATA)


def column_name(name: str, ours: Collection[str]) -> str:
    """Return the column that holds the user's field `name` beside `ours`.

    >>> [column_name(name, ["id"]) for name in ("price", "id", "metadata.id")]
    ['price', 'metadata.id', 'metadata.metadata.id']
    """
    return PREFIX + name if _is_taken(name, ours) else name


def _is_taken(name: str, ours: Collection[str]) -> bool:
    """Tell whether `name` is one of `ours`, with any number of prefixes."""
    while name.startswith(PREFIX):
        name = name.removeprefix(PREFIX)
    return name in ours


def stored_type(kind: pl.DataType) -> pl.DataType | None:
    """Return the type in which a column of type `kind` is kept, None if it cannot be.

    Text, booleans, bytes, numbers, decimals, dates, times, lists and structs of these keep their
    type. Categories and columns of nulls become text, arrays of fixed length lists.

    >>> stored_type(pl.List(pl.Categorical()))
    List(String)
    >>> stored_type(pl.Object()) is None
    True
    """
    if isinstance(kind, (pl.Null, pl.Categorical, pl.Enum)):
        return pl.String()
    if isinstance(kind, (pl.List, pl.Array)):
        inner = stored_type(kind.inner)  # type: ignore[arg-type]
        return None if inner is None else pl.List(inner)
    if isinstance(kind, pl.Struct):
        fields = {field.name: stored_type(field.dtype) for field in kind.fields}  # type: ignore[arg-type]
        return None if None in fields.values() or not fields else pl.Struct(fields)  # type: ignore[arg-type]
    plain = isinstance(kind, SIMPLE) or kind.is_numeric() or kind.is_temporal()
    return kind if plain else None
