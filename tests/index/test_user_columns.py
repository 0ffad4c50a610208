"""Metadata that users give over HTTP, in the types of the index's columns."""

from datetime import date, datetime

import polars as pl
import pytest

from irgen.errors import IndexingError
from irgen.index.user_columns import fit_rows

SCHEMA = pl.Schema(
    {
        "label": pl.String,
        "price": pl.Float64,
        "stock": pl.Int8,
        "day": pl.Date,
        "moment": pl.Datetime("us"),
        "sold": pl.Boolean,
        "tags": pl.List(pl.String),
        "size": pl.Struct({"width": pl.Int64}),
    }
)


def test_json_values_become_those_of_the_columns_and_what_is_missing_is_null():
    row = {
        "price": 3,
        "stock": "7",
        "day": "2026-01-31",
        "moment": "2026-01-31T10:00:00Z",
        "sold": True,
        "tags": ["new"],
        "size": {"width": 5},
    }
    table = fit_rows([row, {"price": 2.5, "label": "shirt"}], SCHEMA, "items")
    assert table.row(0, named=True) == row | {
        "label": None,
        "stock": 7,
        "day": date(2026, 1, 31),
        "moment": datetime(2026, 1, 31, 10),
    }
    assert table.row(1, named=True) == dict.fromkeys(row) | {"price": 2.5, "label": "shirt"}
    assert fit_rows([{}, {}], SCHEMA, "items").width == 0


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"stock": 300}, "items: column 'stock' of the index holds whole numbers, and not 300"),
        ({"stock": 1.5}, "not 1.5"),
        ({"stock": 10**30}, "not 1000000"),
        ({"price": "cheap"}, "not 'cheap'"),
        ({"price": [1]}, r"not \[1\]"),
        ({"label": {"a": 1}}, "holds text"),
        ({"tags": [["new"]]}, "'tags'"),
        ({"size": {"width": "wide"}}, "'size'"),
        ({"day": "soon"}, "holds dates"),
        ({"lable": "a"}, "did you mean 'label'"),
        ({"width": 5}, "filled in from the file.*'metadata.width'"),
    ],
)
def test_a_value_that_does_not_fit_is_named(row, reason):
    with pytest.raises(IndexingError, match=reason):
        fit_rows([{}, row], SCHEMA, "items")
