"""Groups of queries, and the table of a comparison by group."""

from dataclasses import replace

import numpy as np
import polars as pl

from irgen.report.comparison import TITLES
from irgen.study.difficulty import build_difficulty, group_by_size, group_queries
from irgen.study.tables import BETTER

from .test_tables import result

METHODS = {"brute_force_tuned": 0.1, "classify_then_search": 0.2, "index": 0.3}


def make_run(labels: list[list[str]], database: list[str], score: float) -> pl.DataFrame:
    """Return a run in which each query finds images of these labels, best first."""
    rows = [
        (query, rank, database.index(label), score)
        for query, found in enumerate(labels)
        for rank, label in enumerate(found, 1)
    ]
    return pl.DataFrame(rows, schema=["query", "rank", "item", "score"], orient="row")


def test_queries_are_known_doubtful_or_have_a_copy() -> None:
    database = ["cat", "dog", "owl"]
    queries = pl.DataFrame({"sha256": ["x", "y", "z"], "label": ["cat", "owl", None]})
    nearest = [["cat"] * 10, ["cat"] * 6 + ["dog"] * 4, ["dog"]]
    run = make_run(nearest, database, 0.5).with_columns(
        score=pl.when(query=1, rank=1).then(0.9995).otherwise("score")
    )
    groups = group_queries(queries, pl.DataFrame({"label": database}), run, ["cat", "dog"])
    named = {name: rows.to_list() for name, rows in groups.items()}
    assert named["all"] == ["x", "y", "z"]
    assert named["known"] == ["x"] and named["unknown"] == ["y"]
    assert named["copy"] == ["y"] and named["doubtful"] == ["y", "z"]
    assert "few" not in named, "every label has one image"


def test_a_group_that_all_queries_belong_to_is_none() -> None:
    queries = pl.DataFrame({"sha256": ["x", "y"], "label": ["cat", "dog"]})
    run = make_run([["cat"], ["dog"]], ["cat", "dog"], 0.9995)
    groups = group_queries(queries, pl.DataFrame({"label": ["cat", "dog"]}), run, ["cat", "dog"])
    assert {name for name, rows in groups.items() if len(rows)} == {"all"}


def test_labels_are_few_some_or_many_in_thirds() -> None:
    labels = pl.Series("label", ["a"] * 2 + ["b"] * 4 + ["c"] * 4 + ["d"] * 9)
    queries = pl.DataFrame({"sha256": list("adcbe"), "label": list("adcbe")})
    groups = group_by_size(queries, labels)
    assert {name: sorted(rows) for name, rows in groups.items()} == {
        "few": ["a", "b", "c"],
        "some": [],
        "many": ["d"],
    }


def test_a_row_has_the_queries_of_its_group_alone() -> None:
    measured = [result("plain", seed, METHODS) for seed in range(3)]
    easy = pl.Series([f"{number:04d}" for number in range(20)])
    groups = {"all": measured[0].queries["sha256"].unique(), "known": easy, "copy": easy[:3]}
    (table,) = build_difficulty("difficulty", "Difficulty", measured, [groups] * 3)
    assert [row.title for row in table.rows] == ["all queries", "known label"]
    cells = dict(zip(table.columns, table.rows[1].cells, strict=True))
    assert cells["queries"].text == "20"
    values = [
        part.queries.filter(pl.col("sha256").is_in(easy.implode()), method="index")["precision/10"]
        for part in measured
    ]
    title = f"P@10: {TITLES['index']}"
    assert cells[title].text == f"{np.mean(values):.3f} ± {np.std(np.mean(values, 1), ddof=1):.3f}"
    assert cells["gain in P@10"].text == "+0.200 (+0.200 to +0.200)"
    assert cells["gain in P@10"].mark == BETTER


def test_a_group_that_is_all_there_is_makes_no_table() -> None:
    measured = [result("plain", 0, METHODS)]
    groups = {"all": measured[0].queries["sha256"].unique(), "known": pl.Series(["0001"])}
    assert build_difficulty("difficulty", "Difficulty", measured, [groups]) == []
    nothing = replace(measured[0], queries=measured[0].queries.clear())
    assert build_difficulty("difficulty", "Difficulty", [nothing], [groups]) == []
