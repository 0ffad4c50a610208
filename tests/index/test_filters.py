"""Filters: what they let through, of columns of any name and type."""

import datetime
import decimal
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from irgen.catalog.columns import flatten
from irgen.errors import IndexingError
from irgen.index.filters import allowed_rows
from irgen.index.index import Index
from irgen.index.metadata import OURS
from irgen.index.view import View

from .conftest import create, images

NAN, DAY = float("nan"), datetime.date(2026, 1, 31)
TABLE = pl.DataFrame(
    {
        "id": ["cheap", "dear", "nan", "null"],
        "width": pl.Series([5, 6, 7, 8], dtype=pl.Int32),
        "metadata.width": [50, 60, None, None],
        "price": [1.0, 500.0, NAN, None],
        "weight": [[1.0], [2.0], [NAN], None],
        "size": [{"cm": 1.0}, {"cm": 500.0}, {"cm": NAN}, None],
        "cost": pl.Series([decimal.Decimal("9.99"), decimal.Decimal("10.00"), None, None]),
        "day": [DAY, DAY + datetime.timedelta(1), None, None],
        "at": [datetime.datetime(2026, 1, 31, 12), datetime.datetime(2026, 2, 1), None, None],
        "abroad": [datetime.datetime(2026, 1, 31, 12, tzinfo=datetime.UTC), None, None, None],
        "hour": [datetime.time(8), datetime.time(9), None, None],
        "took": [datetime.timedelta(hours=1), datetime.timedelta(hours=3), None, None],
        "sold": [True, False, None, None],
        "tags": [["new", "red"], ["red"], [], None],
        "big": pl.Series([2**63 + 5, 1, None, None], dtype=pl.UInt64),
        'a "b" c.d': ["x", "y", None, None],
        "select": ["x", "y", None, None],
        "Größe": ["x", "y", None, None],
        "Price": ["x", "y", None, None],
        "": ["x", "y", None, None],
    }
)  # fmt: skip


@pytest.fixture
def view(tmp_path: Path) -> Iterator[View]:
    with Index.open(create(tmp_path / "index", TABLE["id"], items=TABLE)) as index:
        yield index.view


def allowed(view: View, allow: str | pl.Expr) -> set[str]:
    return set(view.ids(allowed_rows(allow, view).numpy().nonzero()[0]))


@pytest.mark.parametrize(
    "condition",
    [
        *("{} > 1000000", "{} >= 1000", "{} < -1000", "{} = 7", "{} != {}", "NOT {} = {}"),
        *("{} IN (7, 8)", "{} NOT IN (1, 500)", "{} BETWEEN 1000 AND 1e300", "{} > 1000 OR {} < 0"),
        *("{} NOT BETWEEN 0 AND 1000", "NOT ({} >= 1)", "NOT ({} < 1000)", "{} != 1 AND {} != 500"),
        *("{} + 1 > 1000", "-{} > 0", "ABS({}) > 1000", "CASE WHEN {} > 1000 THEN TRUE END"),
    ],
)
@pytest.mark.parametrize("column", ["price", "size.cm", "weight[1]"])
def test_a_number_that_is_missing_passes_no_comparison(
    view: View, condition: str, column: str
) -> None:
    assert allowed(view, condition.replace("{}", column)) <= {"dear"}
    assert allowed(view, condition.replace("{}", column)) in (set(), {"dear"})
    assert not allowed(view, pl.col("price") > 1000)


def test_a_missing_number_is_null_however_it_was_written(view: View) -> None:
    for column in ("price", "size.cm", "weight[1]"):
        assert allowed(view, f"{column} IS NULL") == {"nan", "null"}
        assert allowed(view, f"{column} IS NOT NULL") == {"cheap", "dear"}


@pytest.mark.parametrize(
    "condition",
    [
        *("cost = 9.99", "cost < 10", "cost IN (9.99)", "big > 9223372036854775807"),
        *("day = '2026-01-31'", "day < '2026-02-01'", "day < DATE '2026-02-01'"),
        *("day BETWEEN '2026-01-01' AND '2026-01-31'", "day IN ('2026-01-31')"),
        *("'2026-02-01' > day", "NOT day >= '2026-02-01'", "EXTRACT(month FROM day) = 1"),
        *("at < '2026-02-01'", "at = '2026-01-31 12:00'", "at < '2026-01-31T13:00:00'"),
        *("abroad > '2026-01-31'", "abroad = '2026-01-31 13:00:00+01:00'"),
        *("hour < '08:30'", "hour = '08:00:00'", "took < INTERVAL '2 hours'"),
        *("sold", "sold = TRUE", "sold = 'true'", "NOT sold IS NOT TRUE"),
        *("'new' = ANY(tags)", "ARRAY_CONTAINS(tags, 'new')", "ARRAY_LENGTH(tags) = 2"),
        *("width = 5", '"metadata.width" = 50', "metadata.width = 50", "metadata.price = 1"),
        *('"a ""b"" c.d" = \'x\'', 'metadata."a ""b"" c.d" = \'x\'', "\"select\" = 'x'"),
        *("Größe = 'x'", "Price = 'x'", "\"\" = 'x'", "id = 'cheap' -- a comment"),
    ],
)
def test_a_column_of_any_name_and_type_can_be_filtered(view: View, condition: str) -> None:
    assert allowed(view, condition) == {"cheap"}


def test_every_name_of_a_users_column_can_be_filtered(tmp_path: Path) -> None:
    names = ["", " ", "id", "label", "metadata", "metadata.id", "rowid", "self", "allow", "LABEL"]
    names += ["select", "a.b", 'a "quote"', "it's", "größe", "key", "row", "count", "x" * 300]
    mine = pl.DataFrame({name: [f"{name} 1", f"{name} 2"] for name in names})
    items = pl.DataFrame({"id": ["a", "b"], "label": ["1", "2"]})
    items = flatten(items.with_columns(mine.to_struct("metadata")), OURS)
    with Index.open(create(tmp_path / "index", ["a", "b"], items=items)) as index:
        for name in names:
            column, value = name.replace('"', '""'), name.replace("'", "''")
            assert allowed(index.view, f"metadata.\"{column}\" = '{value} 2'") == {"b"}
        assert allowed(index.view, "label = '1'") == {"a"}


@pytest.mark.parametrize(
    ("condition", "says"),
    [
        ("day > 'yesterday'", "cannot compare .*the columns are id, width"),
        ("colour = 'red'", 'unable to find column "colour"'),
        ("metadata.height = 5", "height"),
        ("price > 'a'", "cannot compare"),
        ("id IN (SELECT id FROM self)", "cannot hold a SELECT"),
        ("price > 1) OR (price < 1", "cannot be read"),
        ("price > 1; DROP TABLE self", "cannot be read"),
        ("'a' = id OR " * 7000 + "sold", "more than 1,000 operators: write a list"),
        ("1 + " * 7000 + "1 > price", "more than 1,000 operators"),
        ("(" * 7000 + "sold" + ")" * 7000, "cannot be read"),
        ("", "cannot be read"),
    ],
)
def test_a_filter_that_cannot_be_followed_is_refused(view: View, condition: str, says: str) -> None:
    with pytest.raises(IndexingError, match=says) as refusal:
        allowed(view, condition)
    assert len(str(refusal.value)) < 1000


def test_a_long_list_of_ids_is_followed(view: View) -> None:
    names = ", ".join(f"'it''s {number}'" for number in range(7000))
    assert allowed(view, f"id IN ({names}, 'dear')") == {"dear"}


def test_an_image_that_came_without_a_column_does_not_pass(tmp_path: Path) -> None:
    with Index.open(create(tmp_path / "index", TABLE["id"], items=TABLE), writable=True) as index:
        later = images(["later"])
        index.add_encoded(later["embeddings"], ["later"], codes=later["codes"])
        assert "later" not in allowed(index.view, "price > 0 OR price <= 0 OR NOT sold")
        assert allowed(index.view, "price IS NULL") == {"nan", "null", "later"}
