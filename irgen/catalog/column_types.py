"""Types of a user's columns: what the texts of a CSV mean, and how a column keeps its type."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, time
from typing import Any, NamedTuple

import polars as pl
from polars.exceptions import PolarsError

from irgen.catalog.columns import METADATA
from irgen.catalog.sources.listing import Listing, Source
from irgen.errors import SourceError

KINDS: dict[str, pl.DataType] = {
    "text": pl.String(),
    "integer": pl.Int64(),
    "number": pl.Float64(),
    "boolean": pl.Boolean(),
    "date": pl.Date(),
    "datetime": pl.Datetime("us"),
    "time": pl.Time(),
}
BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
MISSING = ("", "-", "nan", "na", "n/a", "null", "none")  # in a column of text they are text
# What a column of texts must be to become another type. 007, +49 and 12E4 are no numbers here, as
# they would not come back as they were.
PATTERNS = {
    pl.Boolean(): r"(?i)^(true|false)$",
    pl.Int64(): r"^(0|-?[1-9][0-9]{0,17})$",
    pl.Float64(): r"(?i)^-?((0|[1-9][0-9]{0,14})(\.[0-9]*)?|\.[0-9]+|inf)(e[-+][0-9]+)?$",
}
NO_NUMBER = r"^(\+|-?0[0-9])"
ODD = 0.1  # a column keeps its type if no more than this share, or one value, does not fit


def settle_types(listing: Listing, source: Source, earlier: pl.DataFrame | None = None) -> Listing:
    """Return the listing of a source with the user's columns in their types, and notes on them.
    `earlier`: the last manifest of the source. Raises SourceError for types that are declared in
    vain."""
    if listing.columns is None:
        if source.types:
            raise SourceError(
                "params.yaml: download: columns declares types, but the source is no list; set it "
                "to {}"
            )
        return listing
    is_typed = earlier is not None and METADATA in earlier.columns
    schema = earlier[METADATA].struct.schema if earlier is not None and is_typed else {}
    columns, notes = settle_columns(listing.columns, schema, source.types, is_text=listing.is_text)
    return replace(listing, columns=columns, notes=(*listing.notes, *notes))


class Settled(NamedTuple):
    """Values of a column in its type, and what the user should know, or ""."""

    values: pl.Series
    note: str


def settle_columns(
    columns: pl.DataFrame,
    earlier: Mapping[str, pl.DataType],
    declared: Mapping[str, str],
    *,
    is_text: bool,
) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """Return the columns of a list (key, label …) with the user's, in `metadata`, in their types;
    and notes on values that do not fit, and on columns that have gone. `is_text`: the list has
    texts alone, as a CSV has.

    A type is the `declared` one, a key of KINDS; else that of the column `earlier`; else that of
    the list, or which its texts have. Raises SourceError for a declared column that is not there.
    """
    fields = columns[METADATA].struct.unnest() if METADATA in columns.columns else pl.DataFrame()
    if unknown := [name for name in declared if name not in fields.columns]:
        raise SourceError(
            f"params.yaml: download: columns: the list has no column {unknown[0]!r} of yours; it "
            f"has {', '.join(fields.columns) or 'none'}"
        )
    gone = [name for name in earlier if name not in fields.columns]
    notes = tuple(
        f"column {name!r} has gone from the list: filters on it will fail" for name in gone
    )
    if not fields.width:
        return columns, notes
    settled = {
        values.name: settle_column(
            values,
            earlier.get(values.name),
            KINDS.get(declared.get(values.name, "")),
            is_text=is_text,
        )
        for values in fields
    }
    table = pl.DataFrame({name: column.values for name, column in settled.items()})
    notes += tuple(column.note for column in settled.values() if column.note)
    return columns.with_columns(table.to_struct(METADATA)), notes


def settle_column(
    values: pl.Series,
    earlier: pl.DataType | None = None,
    declared: pl.DataType | None = None,
    *,
    is_text: bool,
) -> Settled:
    """Return a column in its type, as `settle_columns` does. Numbers may become wider. If more
    values than one, and than the share ODD, do not fit, the column changes its type for good.

    >>> settle_column(pl.Series(["7", "9.5", "n/a"]), is_text=True).values.to_list()
    [7.0, 9.5, None]
    >>> settle_column(pl.Series(["7"] * 20 + ["A-17"]), pl.Int64(), is_text=True).values[-1]
    """
    own = infer_type(values) if is_text else values.dtype
    kind = declared or earlier or own
    kept, lost = convert(values, kind, exact=declared is None)
    if declared is None and len(lost) and own.is_numeric() and kind.is_numeric():
        return Settled(convert(values, own)[0], "")
    count = len(lost) + len(kept) - kept.null_count()
    if declared is None and len(lost) > max(1, ODD * count):
        return Settled(
            convert(values, own)[0],
            f"column {values.name!r} holds {describe(own)} now and held {describe(kind)} before, "
            f"e.g. {lost[0]!r}: filters on it may need a change",
        )
    if not len(lost):
        return Settled(kept, "")
    return Settled(
        kept,
        f"column {values.name!r} holds {describe(kind)}; left empty: {len(lost):,} of {count:,} "
        f"values, e.g. {lost[0]!r}; to keep them, declare it as text in download: columns",
    )


def infer_type(texts: pl.Series) -> pl.DataType:
    """Return the type of all texts that are not MISSING.

    >>> infer_type(pl.Series(["12", " 0", "nan"])), infer_type(pl.Series(["00007", "8"]))
    (Int64, String)
    """
    plain = texts.str.strip_chars()
    plain = plain.filter(~plain.str.to_lowercase().is_in(MISSING))
    for kind, pattern in PATTERNS.items():
        if len(plain) and plain.str.contains(pattern).all():
            return kind
    return pl.String()


def convert(
    values: pl.Series, kind: pl.DataType, *, exact: bool = True
) -> tuple[pl.Series, pl.Series]:
    """Return values as another type, null where they do not fit, and those that do not. `exact`:
    texts such as 007 and +49 are no numbers.

    >>> [part.to_list() for part in convert(pl.Series([1.0, 2.5, float("nan")]), pl.Int8())]
    [[1, None, None], [2.5]]
    """
    if values.dtype == kind:
        return values, values.clear()
    plain = values.fill_nan(None) if values.dtype.is_float() else values
    try:
        if values.dtype == pl.String():
            plain = plain.str.strip_chars()
            plain = plain.set(plain.str.to_lowercase().is_in(MISSING), None)
            kept = _parse(plain, kind)
            if exact and kind.is_numeric():
                kept = kept.set(plain.str.contains(NO_NUMBER), None)
        else:
            if kind == pl.String() and plain.dtype.is_float():
                plain = _undo_fractions(plain)
            kept = plain.cast(kind, strict=False)
            if kind.is_numeric():  # 2.5 is no whole number, and 2**60 + 1 no float
                kept = kept.set(kept.cast(plain.dtype, strict=False) != plain, None)
    except PolarsError:  # there is no such conversion
        kept = pl.Series(values.name, [None], dtype=kind).new_from_index(0, len(values))
    return kept, values.filter(kept.is_null() & plain.is_not_null())


def _undo_fractions(numbers: pl.Series) -> pl.Series:
    """Return whole numbers that became 7.0, as they do in pandas where one is missing, as 7."""
    whole = numbers.cast(pl.Int64, strict=False)
    return whole if (whole == numbers).all() else numbers


def _parse(texts: pl.Series, kind: pl.DataType) -> pl.Series:
    """Return what the texts say, null where it is nothing of this type."""
    if kind.is_integer():
        numbers = texts.cast(pl.Float64, strict=False)  # 7.0 is 7, too
        whole, exact = numbers.cast(kind, strict=False), texts.cast(kind, strict=False)
        return exact.zip_with(exact.is_not_null(), whole.set(whole != numbers, None))
    if kind in READERS:
        return pl.Series(texts.name, map(READERS[kind], texts), dtype=kind)
    return texts.cast(kind, strict=False)


def _read_iso(read: Callable[[str], Any]) -> Callable[[str | None], Any]:
    """Return a function that reads a text, and gives None for one that is not as in ISO 8601."""

    def read_text(text: str | None) -> Any:
        try:
            return None if text is None else read(text)
        except ValueError:
            return None

    return read_text


def _read_datetime(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)


READERS: dict[pl.DataType, Callable[[str | None], Any]] = {
    pl.Boolean(): lambda text: None if text is None else BOOLEANS.get(text.lower()),
    pl.Date(): _read_iso(date.fromisoformat),
    pl.Datetime("us"): _read_iso(_read_datetime),
    pl.Time(): _read_iso(time.fromisoformat),
}


def describe(kind: pl.DataType) -> str:
    """Return the plain name of a type.

    >>> describe(pl.Int8()), describe(pl.List(pl.Int8()))
    ('whole numbers', 'List(Int8)')
    """
    if kind.is_integer():
        return "whole numbers"
    if kind.is_float():
        return "numbers"
    names = {known: f"{name}s" for name, known in KINDS.items()} | {pl.String(): "text"}
    return names.get(kind, str(kind))
