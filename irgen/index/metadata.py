"""The columns an index keeps beside the ids: which types it takes, and how they become bytes."""

import io
from difflib import get_close_matches

import polars as pl
from polars.exceptions import PolarsError

from irgen.errors import IndexingError

ID = "id"
PLAIN = (pl.String, pl.Boolean, pl.Binary, pl.Date, pl.Time, pl.Datetime, pl.Duration)


def kept_as(kind: pl.DataType) -> pl.DataType | None:
    """The type in which a column of type ``kind`` is kept, None if it is not.

    Text, truth values, bytes, numbers, dates and times, and lists of these are kept as they are;
    categories and columns of nothing but nulls as text.

    >>> kept_as(pl.List(pl.Categorical()))
    List(String)
    """
    if isinstance(kind, (pl.Null, pl.Categorical, pl.Enum)):
        return pl.String()
    if isinstance(kind, pl.List):
        inner = kept_as(kind.inner)  # type: ignore[arg-type]
        return None if inner is None or isinstance(inner, pl.List) else pl.List(inner)
    plain = isinstance(kind, PLAIN) or kind.is_integer() or kind.is_float()
    return kind if plain else None


def columns(items: pl.DataFrame) -> pl.DataFrame:
    """The metadata of a new index, all but the ids, in the types in which they are kept. Raises
    IndexingError for a column of a type that is not kept."""
    found = items.drop(ID)
    for name, kind in found.schema.items():
        kept = kept_as(kind)
        if kept is None:
            raise IndexingError(
                f"column {name!r} is of type {kind}, which an index does not keep: make it text, "
                "numbers, truth values, dates, times or lists of these"
            )
        found = found.with_columns(pl.col(name).cast(kept))
    return found


def complete(metadata: pl.DataFrame | None, count: int, schema: pl.Schema) -> pl.DataFrame:
    """Metadata of ``count`` images with exactly the columns and types of ``schema``; columns that
    are not given are null.

    Raises IndexingError for an unknown column, one whose values do not fit, or another number of
    rows.
    """
    if metadata is None:
        metadata = pl.DataFrame()
    elif metadata.height != count:
        raise IndexingError(f"metadata has {metadata.height:,} rows for {count:,} ids")
    unknown = [name for name in metadata.columns if name not in schema]
    if unknown:
        raise IndexingError(_unknown(unknown[0], schema))
    given = [
        _fitted(metadata[name], kind)
        if name in metadata.columns
        else pl.Series(name, [None], dtype=kind).new_from_index(0, count)
        for name, kind in schema.items()
    ]
    return pl.DataFrame(given)


def _unknown(name: str, schema: pl.Schema) -> str:
    if name == ID:
        return "metadata has a column 'id': the ids are given by themselves, drop it"
    known = ", ".join(map(repr, schema)) or "none"
    near = get_close_matches(name, list(schema), 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"metadata has a column {name!r} that the index has not (it has {known}){hint}"


def _fitted(values: pl.Series, kind: pl.DataType) -> pl.Series:
    if values.dtype == kind:
        return values
    if _fits(values.dtype, kind):
        try:
            return values.cast(kind)
        except PolarsError as error:
            reason = str(error).splitlines()[0]
            raise IndexingError(
                f"metadata column {values.name!r} does not fit the index's {kind}: {reason}"
            ) from None
    raise IndexingError(
        f"metadata column {values.name!r} is of type {values.dtype}, the index keeps {kind} there"
    )


def _fits(given: pl.DataType, kind: pl.DataType) -> bool:
    """Whether values of one type mean the same in the other; casting may still find one too big."""
    if isinstance(given, pl.List) and isinstance(kind, pl.List):
        return _fits(given.inner, kind.inner)  # type: ignore[arg-type]
    if isinstance(given, pl.Datetime) and isinstance(kind, pl.Datetime):
        return given.time_zone == kind.time_zone
    return (
        given == kind
        or isinstance(given, pl.Null)
        or kept_as(given) == kind
        or (given.is_integer() and (kind.is_integer() or kind.is_float()))
        or (given.is_float() and kind.is_float())
        or (isinstance(given, pl.Duration) and isinstance(kind, pl.Duration))
    )


def to_bytes(frame: pl.DataFrame) -> bytes:
    """A frame as an Arrow IPC file whose bytes depend on its values alone.

    Columns are built anew from their values, since what polars leaves in padding, under nulls and
    in chunks tells how a column came about.
    """
    file = io.BytesIO()
    pl.DataFrame([_anew(column) for column in frame]).write_ipc(
        file, compat_level=pl.CompatLevel.oldest(), record_batch_size=max(1, frame.height)
    )
    return file.getvalue()


def _anew(column: pl.Series) -> pl.Series:
    raw = column.to_physical()
    return pl.Series(column.name, raw.to_list(), dtype=raw.dtype).cast(column.dtype)
