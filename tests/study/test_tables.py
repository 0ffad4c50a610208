"""Tables of made-up results: what a cell says, where marks stand, how they are written."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from irgen.evaluation.comparison import EVERY
from irgen.study import tables
from irgen.study.plan import Plan, Point, Variant
from irgen.study.results import Result, alike, by_query, over_seeds
from irgen.study.tables import BETTER, WORSE, Cell, Row, Table

KEYS = ("precision/1", "precision/10", "precision/20", "hit/10", "map/R")


def variant(table: str, title: str) -> Variant:
    return Variant(table=table, title=title, changes={})


PLAN = Plan(
    sets=("some",),
    seeds=(0, 1, 2),
    ablation_seeds=(0,),
    compared=("plain", "random"),
    ablated=("one", "many"),
    variants={
        "plain": variant("identifiers", "semantic"),
        "random": variant("identifiers", "by chance"),
        "one": variant("beams", "W = 1"),
        "many": variant("beams", "W = 100"),
    },
)


def result(name: str, seed: int, gains: dict[str, float], queries: int = 60) -> Result:
    """A result whose methods are ``gains`` above a common, random quality of each query."""
    base = np.random.default_rng(7).uniform(0.2, 0.7, queries)
    noise = np.random.default_rng(seed).normal(0, 0.01, queries)
    rows, metrics = [], {"queries": {"count": queries, "without_positive": 0}}
    for method, gain in gains.items():
        values = base + noise + gain
        metrics[method] = {key: float(values.mean()) for key in KEYS} | {"bytes_per_image": 8.0}
        rows.append(
            pl.DataFrame(
                {"method": [method] * queries, "query": range(queries)}
                | dict.fromkeys(KEYS, values)
            )
        )
    return Result(
        point=Point(set="some", variant=name, seed=seed),
        about={
            "asked": "the same",
            "protocol": {
                "format": "folders",
                "protocol": "given",
                "says": "as the source gives them",
            },
            "identifiers": {"distinct_codes": 5.0, "images_a_code": 2.0},
        },
        metrics=metrics,
        latency={method: {"search_ms": 1.0 + seed, "total_ms": 2.0} for method in gains},
        seconds={},
        queries=pl.concat(rows),
    )


@pytest.fixture
def found() -> dict[str, list[Result]]:
    gains = {"scan_tuned": 0.1, "generative": 0.0, "generative_reranked": 0.2}
    poor = {"scan_tuned": 0.1, "generative": -0.1, "generative_reranked": 0.1}
    return {
        "plain": [result("plain", seed, gains) for seed in PLAN.seeds],
        "random": [result("random", seed, poor) for seed in PLAN.seeds],
        "one": [result("one", 0, poor)],
        "many": [result("many", 0, gains)],
    }


def rows_of(table: Table) -> dict[str, Row]:
    return {row.title: row for row in table.rows}


def test_methods_stand_beside_the_scan_with_their_significance(found: dict) -> None:
    table = tables.methods(found, PLAN)
    rows = rows_of(table)
    at = table.columns.index("P@10")
    assert rows[EVERY["scan_tuned"]].measure
    assert rows[EVERY["generative"]].cells[at].mark == WORSE
    best = rows[EVERY["generative_reranked"]].cells[at]
    assert best.mark == BETTER and best.best
    assert all(row.seeds == (0, 1, 2) for row in table.rows)


def test_a_cell_is_the_mean_and_deviation_over_its_seeds(found: dict) -> None:
    values = [each.metrics["generative"]["precision/10"] for each in found["plain"]]
    told = f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"
    table = tables.methods(found, PLAN)
    cell = rows_of(table)[EVERY["generative"]].cells[table.columns.index("P@10")]
    assert cell.text == told


def test_identifiers_are_compared_with_semantic_ones(found: dict) -> None:
    rows = rows_of(tables.identifiers(found, PLAN))
    assert list(rows) == ["semantic", "by chance"]
    assert rows["semantic"].measure and rows["by chance"].cells[1].mark == WORSE


def test_an_ablation_has_the_standard_variant_with_the_same_seeds(found: dict) -> None:
    (table,) = tables.ablations(found, PLAN)
    rows = rows_of(table)
    assert list(rows) == ["semantic", "W = 1", "W = 100"]
    assert all(row.seeds == (0,) for row in table.rows)
    assert rows["W = 1"].cells[1].mark == WORSE and rows["W = 100"].cells[1].mark == ""
    assert "±" not in rows["W = 1"].cells[1].text, "one seed has no deviation"


def test_what_has_not_been_run_is_left_out(found: dict) -> None:
    names = [table.name for table in tables.all_of({"plain": found["plain"]}, PLAN)]
    assert names == ["methods"]
    kept = {name: found[name] for name in ("plain", "many")}
    assert [table.name for table in tables.all_of(kept, PLAN)] == ["methods", "beams"]


def test_a_method_that_was_not_measured_with_every_seed_has_no_mean(found: dict) -> None:
    del found["plain"][1].metrics["generative"]
    assert over_seeds(found["plain"], "generative", "precision/10") is None


def test_queries_are_averaged_over_seeds(found: dict) -> None:
    parts = [
        each.queries.filter(pl.col("method") == "generative")["map/R"].to_numpy()
        for each in found["plain"]
    ]
    values = by_query(found["plain"], "generative", "map/R")
    assert values == pytest.approx(np.mean(parts, axis=0))
    assert by_query(found["plain"], "nothing", "map/R") is None


def test_seeds_that_draw_their_own_queries_stand_side_by_side(found: dict) -> None:
    found["plain"][2].about["asked"] = "others"
    values = by_query(found["plain"], "generative", "map/R")
    own = found["plain"][2].queries.filter(pl.col("method") == "generative")["map/R"]
    assert values is not None and len(values) == 120
    assert values[60:] == pytest.approx(own.to_numpy())


def test_only_seeds_of_both_are_alike(found: dict) -> None:
    first, second = alike(found["plain"], found["one"])
    assert [each.point.seed for each in first] == [each.point.seed for each in second] == [0]


TABLE = Table(
    name="odd",
    title="Odd & even",
    columns=("P@1",),
    rows=(
        Row(
            title="50% of_it", cells=(Cell(text="0.5 ± 0.1", mark=BETTER, best=True),), seeds=(0, 1)
        ),
        Row(title="rest", cells=(Cell(text="–"),), seeds=(0,), measure=True),
    ),
    about="p < 0.05",
)


def test_markdown_says_all_there_is() -> None:
    assert tables.markdown(TABLE) == (
        "### Odd & even\n\n"
        "|  | P@1 | seeds |\n"
        "| --- | ---: | ---: |\n"
        f"| 50% of_it | **0.5 ± 0.1** {BETTER} | 0, 1 |\n"
        "| rest | – | 0 |\n\n"
        "p < 0.05\n"
    )


def test_latex_escapes_what_it_must(tmp_path: Path) -> None:
    text = tables.latex(TABLE)
    assert r"50\% of\_it & \textbf{0.5 $\pm$ 0.1} $\blacktriangle$ & 0, 1 \\" in text
    assert r"\caption{Odd \& even. p $<$ 0.05}" in text
    assert text.isascii()
    assert text.count(r"\begin") == text.count(r"\end") == 2
