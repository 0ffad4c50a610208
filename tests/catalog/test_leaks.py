"""Queries that were trained on are found and counted."""

from collections.abc import Sequence

import numpy as np
import polars as pl

from irgen.catalog.leaks import SCHEMA, count_leaks, find_leaks
from irgen.catalog.table import SCHEMA as TABLE

PRINTS = {
    "a": (1 << 40, 7),
    "a-again": (1 << 40, 5),
    "a-darker": (1 << 41, 7),
    "b": (2**60 - 1, 3),
    "c": (3, 2**60 - 1),
}


def table(*images: tuple[str, str, str]) -> pl.DataFrame:
    """Images (id, label, sha256)."""
    rows = [(name, name, label, "train", sha, 5, 6) for name, label, sha in images]
    return pl.DataFrame(rows, schema=TABLE, orient="row")


def leaks(train: list, queries: list, validation: Sequence = (), **rules: bool) -> list[tuple]:
    """Of a catalogue whose images can all be found."""
    tables = {
        "train": table(*train),
        "validation": table(*validation),
        "database": table(*train, *validation, *queries),
        "queries": table(*queries),
    }
    prints = pl.DataFrame(
        [(sha, *halves) for sha, halves in PRINTS.items()],
        schema={"sha256": pl.String, "across": pl.UInt64, "down": pl.UInt64},
        orient="row",
    )
    leak_table = find_leaks(tables, prints, thumbnail, rules.get("disjoint", False))
    assert leak_table.schema == SCHEMA
    return leak_table.rows()


def thumbnail(sha256: str) -> np.ndarray:
    return np.array([1.0, 0.0] if sha256 in ("a", "a-again") else [0.8, 0.6])


def test_the_same_file_under_another_id_is_a_leak() -> None:
    table = leaks([("t", "x", "a"), ("u", "x", "a")], [("q", "y", "a")])
    assert table == [("same_file", "q", "t", False, 0)]


def test_a_validation_image_counts_as_trained_on() -> None:
    table = leaks([("t", "x", "b")], [("q", "y", "a")], validation=[("v", "y", "a")])
    assert table == [("same_file", "q", "v", True, 0)]


def test_a_near_copy_counts_if_its_pixels_are_alike() -> None:
    train = [("t", "x", "a-again"), ("u", "x", "a-darker"), ("v", "x", "b")]
    table = leaks(train, [("q", "x", "a")])
    assert table == [("near_image", "q", "t", True, 1)]


def test_queries_that_can_be_found_are_no_leaks_of_themselves_nor_of_each_other() -> None:
    queries = [("q", "x", "a"), ("r", "x", "a"), ("s", "y", "a-again"), ("t", "x", "b")]
    assert leaks([("u", "y", "c")], queries) == []


def test_a_query_that_is_trained_on_is_a_leak_whatever_its_id() -> None:
    table = leaks([("q", "x", "a"), ("u", "y", "b")], [("q", "z", "a")])
    assert table == [("same_file", "q", "q", False, 0)]


def test_copies_by_the_thousand_are_one_leak_a_query() -> None:
    copies = [(f"{number:05d}", "x", "a") for number in range(3000)]
    table = leaks([("t", "x", "a"), ("u", "x", "a")], copies)
    assert len(table) == 3000 and {row[2] for row in table} == {"t"}


def test_shared_labels_are_leaks_where_the_protocol_forbids_them() -> None:
    train, queries = [("t", "x", "a"), ("u", "x", "a-darker")], [("q", "x", "b"), ("r", "y", "c")]
    assert leaks(train, queries) == []
    assert leaks(train, queries, disjoint=True) == [("shared_label", "q", "t", True, None)]


def test_leaks_are_counted_by_kind() -> None:
    table = pl.DataFrame({"kind": ["near_image", "near_image", "same_file"]})
    assert count_leaks(table) == {"same_file": 1, "near_image": 2, "shared_label": 0}
