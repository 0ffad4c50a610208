"""A catalogue table is checked when read and written."""

from pathlib import Path

import polars as pl
import pytest

from irgen.catalog.table import (
    SCHEMA,
    check_table,
    describe_similar_labels,
    label_counts,
    read_table,
    write_table,
)
from irgen.errors import ArtifactError


def table(ids: list[str]) -> pl.DataFrame:
    rows = [(i, f"cat/{i}", "cat", "train", "00", 5, 6) for i in ids]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def test_a_table_comes_back_as_it_was_written(tmp_path: Path) -> None:
    price = pl.struct(price=pl.lit(1.5), id=pl.lit("mine"))
    written = table(["a", "b"]).with_columns(metadata=price)
    write_table(tmp_path / "train.parquet", written)
    assert read_table(tmp_path / "train.parquet").equals(written)
    write_table(tmp_path / "empty.parquet", table([]))
    assert read_table(tmp_path / "empty.parquet").schema == SCHEMA


def test_equal_tables_are_equal_files_however_they_were_made(tmp_path: Path) -> None:
    write_table(tmp_path / "a", table(["a", "b", "c"]))
    pieces = pl.concat([table(["b"]), table(["x", "c"]), table(["a"])])
    write_table(tmp_path / "b", pieces.filter(pl.col("id") != "x").sort("id"))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (table(["a"]).drop("label"), "column 'label' should be String, found None"),
        (table(["a"]).with_columns(width=pl.lit(1.5)), "'width' should be Int32"),
        (table(["a"]).with_columns(sha256=pl.lit(None, pl.String)), "'sha256' has empty values"),
        (table(["a"]).with_columns(role=pl.lit("test")), "unknown role 'test'; known: train"),
        (table(["b", "a"]), "not distinct and in order"),
        (table(["a", "a"]), "not distinct and in order"),
    ],
)
def test_what_is_no_catalogue_table_is_a_clear_error(wrong: pl.DataFrame, said: str) -> None:
    with pytest.raises(ArtifactError, match=f"here: .*{said}"):
        check_table(wrong, "here")


def test_a_missing_or_damaged_file_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="dvc repro"):
        read_table(tmp_path / "train.parquet")
    (tmp_path / "train.parquet").write_bytes(b"PAR1")
    with pytest.raises(ArtifactError, match="damaged"):
        read_table(tmp_path / "train.parquet")


def test_labels_are_counted_in_order() -> None:
    assert label_counts(table([])).rows() == []
    assert label_counts(table(["a", "b"])).rows() == [("cat", 2)]


def test_an_image_may_have_no_label_and_is_then_not_counted(tmp_path: Path) -> None:
    bare = table(["a", "b"]).with_columns(label=pl.Series([None, "cat"], dtype=pl.String))
    write_table(tmp_path / "train.parquet", bare)
    assert read_table(tmp_path / "train.parquet").equals(bare)
    assert label_counts(bare).rows() == [("cat", 1)]


def test_labels_that_are_nearly_one_are_named() -> None:
    labels = ["cat", "Cat", "cat", "t_shirt", "T-Shirt", "t  shirt", "dog", "Straße", "STRASSE"]
    text = describe_similar_labels(pl.DataFrame({"label": labels}))
    assert text.startswith("2 groups of labels differ")
    assert "'Cat' (1) and 'cat' (2)" in text and "'T-Shirt' (1)" in text
    assert describe_similar_labels(pl.DataFrame({"label": ["cat", "cats", "7", "07"]})) == ""
    assert describe_similar_labels(table([])) == ""
