"""Fields of the page that filter by metadata: choices, ranges, dates and words, one a column."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal

import polars as pl

from irgen.errors import IndexingError
from irgen.index.metadata import ID
from irgen.index.view import View

MOST_CHOICES = 40  # distinct values of a column that is offered as a list
LONGEST_CHOICE = 60  # characters
LOOKED_AT = 100_000  # rows that a list of choices is made from
HIDDEN = {ID, "sha256", "path"}
PREFIX = "f."  # of the fields' names, before that of the column


@dataclass(frozen=True)
class Facet:
    """One column that can be filtered by. ``choices``: its values, if they are few."""

    column: str
    kind: Literal["choice", "number", "date", "text"]
    choices: tuple[str, ...] = ()

    @property
    def fields(self) -> tuple[str, ...]:
        """Return the names of its fields in the address."""
        name = PREFIX + self.column
        return (name + ".from", name + ".to") if self.kind in ("number", "date") else (name,)


def list_facets(view: View) -> list[Facet]:
    """Return the columns that people can filter by, those with choices first."""
    table = view.table.head(LOOKED_AT)
    facets = [
        facet
        for name, kind in view.schema.items()
        if name not in HIDDEN and (facet := _make_facet(name, kind, table)) is not None
    ]
    return sorted(facets, key=lambda facet: facet.kind != "choice")


def _make_facet(name: str, kind: pl.DataType, table: pl.DataFrame) -> Facet | None:
    if kind.is_numeric():
        return Facet(name, "number")
    if isinstance(kind, pl.Date | pl.Datetime):
        return Facet(name, "date")
    if not isinstance(kind, pl.String | pl.Boolean):
        return None
    values = table[name].drop_nulls().unique().head(MOST_CHOICES + 1)
    is_long = values.dtype == pl.String and (values.str.len_chars() > LONGEST_CHOICE).any()
    if len(values) > MOST_CHOICES or is_long:
        return Facet(name, "text")
    return (
        Facet(name, "choice", tuple(sorted(map(_format_choice, values)))) if len(values) else None
    )


def _format_choice(value: str | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else value


def read_filter(facets: Sequence[Facet], values: Mapping[str, str]) -> str | None:
    """Return the filter, in SQL, that the fields of an address say; None if they are all empty.
    Raise IndexingError for a number or date that is none."""
    conditions = [
        _write_condition(facet, field, value)
        for facet in facets
        for field in facet.fields
        if (value := values.get(field, "").strip())
    ]
    return " AND ".join(conditions) or None


def _write_condition(facet: Facet, field: str, value: str) -> str:
    column = '"' + facet.column.replace('"', '""') + '"'
    if facet.kind == "choice":
        return f"CAST({column} AS VARCHAR) = {_quote(value)}"
    if facet.kind == "text":
        return f"STRPOS(LOWER({column}), {_quote(value.lower())}) > 0"
    try:
        bound = _read_number(value) if facet.kind == "number" else _quote(_read_date(value))
    except ValueError:
        raise IndexingError(f"{facet.column}: {value!r} is no {facet.kind}") from None
    if facet.kind == "date":
        column = f"CAST({column} AS DATE)"
    return f"{column} {'>=' if field.endswith('.from') else '<='} {bound}"


def _read_number(value: str) -> str:
    if not math.isfinite(number := float(value)):
        raise ValueError
    return repr(number)


def _read_date(value: str) -> str:
    return date.fromisoformat(value).isoformat()


def _quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
