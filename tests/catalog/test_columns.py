"""The user's columns may have any name, also one of ours, and come back from a file."""

from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from irgen.catalog.columns import column_name, flatten, nest, stored_type

OURS = ("id", "size", "gone")
NAMES = st.sampled_from([*OURS, "metadata"]) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=5
)
PREFIXED = st.builds("".join, st.tuples(st.sampled_from(["", "metadata.", "metadata." * 2]), NAMES))


@given(st.lists(PREFIXED, min_size=1, max_size=9, unique=True))
def test_any_names_come_back_and_never_meet_ours(names: list[str]) -> None:
    fields = [pl.lit(number).alias(name) for number, name in enumerate(names)]
    table = pl.DataFrame({"id": ["a"], "size": [1]}).with_columns(metadata=pl.struct(fields))
    flat = flatten(table, OURS)
    assert flat.columns[:2] == ["id", "size"]
    assert flat.columns[2:] == [column_name(name, OURS) for name in names]
    assert nest(flat, OURS).equals(table)


def test_a_table_without_columns_of_the_user_stays_as_it_is() -> None:
    table = pl.DataFrame({"id": ["a"]})
    assert nest(table, OURS).equals(table)
    assert flatten(table, OURS).equals(table)


def test_a_thousand_columns_come_back_from_a_file(tmp_path: Path) -> None:
    fields = [pl.lit(number).alias(f"c {number}") for number in range(1000)]
    table = pl.DataFrame({"id": ["a"]}).with_columns(metadata=pl.struct(fields))
    flatten(table, OURS).write_parquet(tmp_path / "table.parquet")
    assert nest(pl.read_parquet(tmp_path / "table.parquet"), OURS).equals(table)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (pl.Decimal(20, 2), pl.Decimal(20, 2)),
        (pl.UInt64(), pl.UInt64()),
        (pl.Int128(), pl.Int128()),
        (pl.Enum(["a"]), pl.String()),
        (pl.Null(), pl.String()),
        (pl.Duration("ms"), pl.Duration("ms")),
        (pl.Datetime("ns", "Europe/Berlin"), pl.Datetime("ns", "Europe/Berlin")),
        (pl.Array(pl.Float32(), 4), pl.List(pl.Float32())),
        (pl.List(pl.List(pl.Categorical())), pl.List(pl.List(pl.String()))),
        (pl.Struct({"a": pl.Null()}), pl.Struct({"a": pl.String()})),
        (pl.Struct({}), None),
        (pl.List(pl.Object()), None),
    ],
    ids=str,
)
def test_every_type_is_kept_or_known_as_one_that_is_not(
    given: pl.DataType, kept: pl.DataType | None
) -> None:
    assert stored_type(given) == kept
