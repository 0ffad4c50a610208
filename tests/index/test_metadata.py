"""Metadata columns: what an index stores of them, by value."""

import datetime
import math
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from irgen.errors import IndexingError
from irgen.index import metadata
from irgen.index.rows import check_table

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)

SCHEMA = pl.Schema(
    {
        "label": pl.String(),
        "small": pl.Int8(),
        "price": pl.Float32(),
        "seen": pl.Datetime("us"),
        "tags": pl.List(pl.String()),
    }
)


def test_columns_that_are_left_out_are_null() -> None:
    assert metadata.complete(None, 2, SCHEMA).rows() == [(None,) * 5] * 2
    given = pl.DataFrame({"price": [1, 2], "label": pl.Series(["a", None], dtype=pl.Categorical)})
    completed = metadata.complete(given, 2, SCHEMA)
    assert completed.schema == SCHEMA
    assert completed.rows() == [("a", None, 1.0, None, None), (None, None, 2.0, None, None)]
    assert metadata.complete(pl.DataFrame(), 0, SCHEMA).schema == SCHEMA
    assert metadata.complete(None, 0, SCHEMA).schema == SCHEMA


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"labl": ["a", "b"]},
            "'labl' that the index does not .*'label'.*did you mean 'label'",
        ),
        ({"id": ["a", "b"]}, "ids are an argument of their own"),
        ({"label": [1, 2]}, "'label' is of type Int64, the index stores String"),
        ({"small": ["1", "2"]}, "'small' is of type String, the index stores Int8"),
        ({"small": [1, 300]}, "'small' does not fit the index's Int8"),
        ({"small": [1.0, 2.0]}, "'small' is of type Float64"),
        ({"seen": [datetime.date(2024, 1, 1)] * 2}, "'seen' is of type Date"),
        ({"tags": [[1], [2]]}, "'tags' is of type List"),
        ({"label": ["a"]}, "1 rows for 2 ids"),
        ({"label": ["a"] * 3}, "3 rows for 2 ids"),
    ],
)
def test_metadata_that_does_not_fit_is_refused(given: dict, message: str) -> None:
    with pytest.raises(IndexingError, match=message):
        metadata.complete(pl.DataFrame(given), 2, SCHEMA)


def test_metadata_that_means_the_same_is_taken() -> None:
    given = pl.DataFrame(
        {
            "small": [None, None],
            "seen": pl.Series([datetime.datetime(2024, 1, 1)] * 2, dtype=pl.Datetime("ms")),
            "tags": [[], []],
        }
    )
    completed = metadata.complete(given, 2, SCHEMA)
    assert completed.row(0) == (None, None, None, datetime.datetime(2024, 1, 1), [])


def test_a_new_index_keeps_categories_and_empty_columns_as_text() -> None:
    given = pl.DataFrame(
        {
            "kind": pl.Series(["x", "y"], dtype=pl.Enum(["x", "y"])),
            "none": [None, None],
            "tags": pl.Series([["x"], []], dtype=pl.List(pl.Categorical)),
            "box": pl.Series([[1, 2], [3, 4]], dtype=pl.Array(pl.Int8, 2)),
            "id": ["a", "b"],
        }
    )
    completed = check_table(given)
    assert completed.schema == {
        "id": pl.String,
        "kind": pl.String,
        "none": pl.String,
        "tags": pl.List(pl.String),
        "box": pl.List(pl.Int8),
    }
    with pytest.raises(IndexingError, match="column 'odd' is of type Object"):
        check_table(pl.DataFrame({"id": ["a"], "odd": pl.Series([object()], dtype=pl.Object)}))
    with pytest.raises(IndexingError, match="no column 'id' \\(it has name\\)"):
        check_table(pl.DataFrame({"name": ["a"]}))


COLUMNS = {
    "text": (pl.String(), NAMES),
    "whole": (pl.Int32(), st.integers(-5, 5)),
    "real": (pl.Float32(), st.floats(width=32, allow_nan=False)),
    "large": (pl.UInt64(), st.integers(0, 2**64 - 1)),
    "day": (pl.Date(), st.dates()),
    "time": (pl.Time(), st.times()),
    "long": (pl.Duration("ms"), st.integers(-(10**9), 10**9)),
    "true": (pl.Boolean(), st.booleans()),
    "when": (pl.Datetime("ns", "UTC"), st.integers(0, 10**18)),
    "tags": (pl.List(pl.String()), st.lists(NAMES, max_size=3)),
    "raw": (pl.Binary(), st.binary(max_size=3)),
    "raws": (pl.List(pl.Binary()), st.lists(st.none() | st.binary(max_size=3), max_size=3)),
    "days": (pl.List(pl.Date()), st.lists(st.none() | st.dates(), max_size=3)),
    "price": (pl.Decimal(20, 2), st.decimals(-(10**9), 10**9, places=2)),
    "huge": (pl.Int128(), st.integers(-(2**100), 2**100)),
    "boxes": (pl.List(pl.List(pl.Int16())), st.lists(st.lists(st.integers(0, 9)), max_size=2)),
    "about": (
        pl.Struct({"raw": pl.Binary(), "day": pl.Date(), "cost": pl.Decimal(9, 1)}),
        st.fixed_dictionaries(
            {
                "raw": st.binary(max_size=2),
                "day": st.dates(),
                "cost": st.none() | st.decimals(0, 99, places=1),
            }
        ),
    ),
}


@st.composite
def frames(draw: st.DrawFn) -> pl.DataFrame:
    count = draw(st.integers(0, 6))
    columns = []
    for name, (kind, values) in COLUMNS.items():
        drawn = draw(st.lists(st.none() | values, min_size=count, max_size=count))
        raw = pl.Int64() if name in ("when", "long") else kind
        columns.append(pl.Series(name, drawn, dtype=raw).cast(kind))
    return pl.DataFrame(columns)


def write(frame: pl.DataFrame) -> bytes:
    """Return the bytes of the file that a table gives."""
    with TemporaryDirectory() as folder:
        metadata.write_arrow(path := Path(folder) / "metadata.arrow", frame)
        return path.read_bytes()


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(frames(), st.randoms(use_true_random=False))
def test_the_bytes_of_a_table_follow_from_its_values_alone(frame: pl.DataFrame, random) -> None:
    kept = write(frame)
    order = list(range(frame.height))
    random.shuffle(order)
    back = [order.index(row) for row in range(frame.height)]
    other = pl.concat([frame, frame.reverse(), frame], rechunk=False)
    for same in (
        frame[order][back],
        other[: frame.height],
        other[2 * frame.height :],
        other.with_row_index("n").filter(pl.col("n") < frame.height).drop("n"),
    ):
        assert same.equals(frame)
        assert write(same) == kept
    assert pl.read_ipc(kept).equals(frame)
    assert pl.read_ipc(kept).schema == frame.schema


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(frames())
def test_rows_of_any_type_come_back_from_json_as_they_were(frame: pl.DataFrame) -> None:
    ids = [f"{number}" for number in range(frame.height)]
    table = frame.insert_column(0, pl.Series("id", ids, dtype=pl.String))
    schema = pl.Schema(list(table.schema.items())[1:])
    back = metadata.from_json(ids, metadata.to_json(table), schema)
    assert back.schema == table.schema
    assert back.equals(table)


def test_what_is_no_number_is_not_taken_for_a_missing_one() -> None:
    table = pl.DataFrame({"id": list("abc"), "x": [math.nan, None, -math.inf]})
    back = metadata.from_json(list("abc"), metadata.to_json(table), pl.Schema({"x": pl.Float64()}))
    assert back["x"].is_nan().to_list() == [True, None, False]
    assert back["x"][2] == -math.inf


def test_an_index_may_have_no_columns() -> None:
    table = pl.DataFrame({"id": ["a", "b"]})
    assert metadata.from_json(["a", "b"], metadata.to_json(table), pl.Schema()).equals(table)
