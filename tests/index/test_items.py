"""Ids, keys and metadata, against a plain dictionary and by value."""

import datetime
import hashlib

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from irgen.errors import IndexingError
from irgen.index import items, metadata
from irgen.index.items import Items, checked_ids, checked_items, distinct_keys, keys_of

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)


@given(st.lists(NAMES, max_size=5))
def test_a_key_is_the_first_63_bits_of_blake2b(names: list[str]) -> None:
    keys = keys_of(names)
    assert keys.dtype == np.int64
    assert keys.shape == (len(names),)
    for key, name in zip(keys.tolist(), names, strict=True):
        assert key == int(hashlib.blake2b(name.encode()).hexdigest()[:16], 16) >> 1


@pytest.mark.parametrize(
    ("ids", "told"),
    [
        ("abc", "not the one string 'abc'"),
        (["a", ""], "id 1 is ''"),
        (["a", None], "id 1 is None"),
        ([1], "id 0 is 1"),
        (["\ud800"], "not proper text"),
        (["a", "b", "a", "c", "b"], "given twice: 'a', 'b'"),
    ],
)
def test_ids_that_are_none_are_refused(ids: list, told: str) -> None:
    with pytest.raises(IndexingError, match=told):
        checked_ids(ids)


def test_ids_may_come_as_any_sequence() -> None:
    assert checked_ids(pl.Series(["b", "a"])) == checked_ids(np.array(["b", "a"])) == ["b", "a"]


def test_two_ids_of_one_key_are_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(items, "keys_of", lambda ids: np.array([len(i) for i in ids]))
    with pytest.raises(IndexingError, match="'ab' and 'cd' have the same 63-bit hash: rename"):
        distinct_keys(["a", "ab", "cd"])
    assert distinct_keys(["abc", "a"]).tolist() == [3, 1]


@given(
    base=st.lists(st.integers(0, 20), unique=True, max_size=6),
    batches=st.lists(st.lists(st.integers(0, 20), unique=True, max_size=4), max_size=4),
    wanted=st.lists(st.integers(0, 20), max_size=8),
)
def test_the_newest_row_of_a_key_is_found_as_in_a_dictionary(base, batches, wanted) -> None:
    base.sort()

    def frame(keys: list[int], batch: int) -> pl.DataFrame:
        ids = [f"{key}" for key in keys]
        return pl.DataFrame({"id": ids, "batch": [batch] * len(keys)}, {"id": str, "batch": int})

    held = Items.of(frame(base, -1), np.array(base, np.int64))
    rows = [(f"{key}", -1) for key in base]
    for number, batch in enumerate(batches):
        held = held.with_added(frame(batch, number), np.array(batch, np.int64))
        rows += [(f"{key}", number) for key in batch]
    newest = {name: row for row, (name, _) in enumerate(rows)}
    assert held.newest(np.array(wanted, np.int64)).tolist() == [
        newest.get(f"{key}", -1) for key in wanted
    ]
    assert held.frame.rows() == rows
    some = np.array([(7 * key) % len(rows) for key in wanted] if rows else [], np.int64)
    assert held.take(some).rows() == [rows[row] for row in some]
    assert held.ids(some) == [rows[row][0] for row in some]


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
    found = metadata.complete(given, 2, SCHEMA)
    assert found.schema == SCHEMA
    assert found.rows() == [("a", None, 1.0, None, None), (None, None, 2.0, None, None)]
    assert metadata.complete(pl.DataFrame(), 0, SCHEMA).schema == SCHEMA
    assert metadata.complete(None, 0, SCHEMA).schema == SCHEMA


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"labl": ["a", "b"]}, "'labl' that the index has not .*'label'.*did you mean 'label'"),
        ({"id": ["a", "b"]}, "ids are given by themselves"),
        ({"label": [1, 2]}, "'label' is of type Int64, the index keeps String"),
        ({"small": ["1", "2"]}, "'small' is of type String, the index keeps Int8"),
        ({"small": [1, 300]}, "'small' does not fit the index's Int8"),
        ({"small": [1.0, 2.0]}, "'small' is of type Float64"),
        ({"seen": [datetime.date(2024, 1, 1)] * 2}, "'seen' is of type Date"),
        ({"tags": [[1], [2]]}, "'tags' is of type List"),
        ({"label": ["a"]}, "1 rows for 2 ids"),
        ({"label": ["a"] * 3}, "3 rows for 2 ids"),
    ],
)
def test_metadata_that_does_not_fit_is_refused(given: dict, told: str) -> None:
    with pytest.raises(IndexingError, match=told):
        metadata.complete(pl.DataFrame(given), 2, SCHEMA)


def test_metadata_that_means_the_same_is_taken() -> None:
    given = pl.DataFrame(
        {
            "small": [None, None],
            "seen": pl.Series([datetime.datetime(2024, 1, 1)] * 2, dtype=pl.Datetime("ms")),
            "tags": [[], []],
        }
    )
    found = metadata.complete(given, 2, SCHEMA)
    assert found.row(0) == (None, None, None, datetime.datetime(2024, 1, 1), [])


def test_a_new_index_keeps_categories_and_empty_columns_as_text_and_refuses_structures() -> None:
    given = pl.DataFrame(
        {
            "kind": pl.Series(["x", "y"], dtype=pl.Enum(["x", "y"])),
            "none": [None, None],
            "tags": pl.Series([["x"], []], dtype=pl.List(pl.Categorical)),
            "id": ["a", "b"],
        }
    )
    found = checked_items(given)
    assert found.schema == {
        "id": pl.String,
        "kind": pl.String,
        "none": pl.String,
        "tags": pl.List(pl.String),
    }
    with pytest.raises(IndexingError, match="column 'box' is of type Struct"):
        checked_items(pl.DataFrame({"id": ["a"], "box": [{"x": 1}]}))
    with pytest.raises(IndexingError, match="no column 'id' \\(they have name\\)"):
        checked_items(pl.DataFrame({"name": ["a"]}))


COLUMNS = {
    "text": (pl.String(), NAMES),
    "whole": (pl.Int32(), st.integers(-5, 5)),
    "real": (pl.Float32(), st.floats(width=32, allow_nan=False)),
    "true": (pl.Boolean(), st.booleans()),
    "when": (pl.Datetime("ns", "UTC"), st.integers(0, 10**18)),
    "tags": (pl.List(pl.String()), st.lists(NAMES, max_size=3)),
    "raw": (pl.Binary(), st.binary(max_size=3)),
}


@st.composite
def frames(draw: st.DrawFn) -> pl.DataFrame:
    count = draw(st.integers(0, 6))
    columns = []
    for name, (kind, values) in COLUMNS.items():
        drawn = draw(st.lists(st.none() | values, min_size=count, max_size=count))
        raw = pl.Int64() if name == "when" else kind
        columns.append(pl.Series(name, drawn, dtype=raw).cast(kind))
    return pl.DataFrame(columns)


@given(frames(), st.randoms(use_true_random=False))
def test_the_bytes_of_a_table_follow_from_its_values_alone(frame: pl.DataFrame, random) -> None:
    kept = metadata.to_bytes(frame)
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
        assert metadata.to_bytes(same) == kept
    assert pl.read_ipc(kept).equals(frame)
    assert pl.read_ipc(kept).schema == frame.schema
