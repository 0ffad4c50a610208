"""Tables of made-up results: what a cell says, where marks stand, how they are written."""

import re
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from irgen.report.comparison import TITLES
from irgen.study import formats, tables
from irgen.study.plan import Plan, Trial, Variant
from irgen.study.report import summarize
from irgen.study.results import (
    MethodResults,
    Result,
    find_differences,
    keep_shared_seeds,
    over_seeds,
    subtract,
)
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
    """Return a result whose methods are ``gains`` above a common, random quality of each query."""
    base = np.random.default_rng(7).uniform(0.2, 0.7, queries)
    noise = np.random.default_rng(seed).normal(0, 0.01, queries)
    rows, metrics = [], {"queries": {"count": queries, "without_positive": 0}}
    for method, gain in gains.items():
        values = base + noise + gain
        metrics[method] = {key: float(values.mean()) for key in KEYS} | {"bytes_per_image": 8.0}
        rows.append(
            pl.DataFrame(
                {"method": [method] * queries, "query": range(queries)}
                | {"sha256": [f"{number:04d}" for number in range(queries)]}
                | dict.fromkeys(KEYS, values)
            )
        )
    return Result(
        trial=Trial(set="some", variant=name, seed=seed),
        facts={
            "asked": "the same",
            "protocol": {
                "format": "folders",
                "protocol": "given",
                "says": "as the source gives them",
            },
            "identifiers": {"distinct_codes": 5.0, "images_a_code": 2.0},
            "images": {"queries": queries, "database": 900},
            "relevant": [3, 20],
            "machine": {"device": "cpu", "threads": 2, "batch_size": 32},
            "params": {
                "seed": seed,
                "changed": name,
                "evaluate.cutoffs": [1, 10, 20],
                "evaluate.hedge": 5.0,
            },
        },
        metrics=metrics,
        latency={method: {"search_ms": 1.0 + seed, "total_ms": 2.0} for method in gains},
        seconds={},
        queries=pl.concat(rows),
    )


@pytest.fixture
def loaded() -> dict[str, list[Result]]:
    gains = {"brute_force_tuned": 0.1, "generative": 0.0, "generative_reranked": 0.2}
    poor = {"brute_force_tuned": 0.1, "generative": -0.1, "generative_reranked": 0.1}
    return {
        "plain": [result("plain", seed, gains) for seed in PLAN.seeds],
        "random": [result("random", seed, poor) for seed in PLAN.seeds],
        "one": [result("one", 0, poor)],
        "many": [result("many", 0, gains)],
    }


def rows_of(table: Table) -> dict[str, Row]:
    return {row.title: row for row in table.rows}


def test_methods_stand_beside_the_scan_with_their_significance(loaded: dict) -> None:
    table = tables.build_methods(loaded, PLAN)
    rows = rows_of(table)
    at = table.columns.index("P@10")
    assert rows[TITLES["brute_force_tuned"]].reference
    assert rows[TITLES["generative"]].cells[at].mark == WORSE
    best = rows[TITLES["generative_reranked"]].cells[at]
    assert best.mark == BETTER and best.best
    assert all(row.seeds == (0, 1, 2) for row in table.rows)


def test_a_cell_is_the_mean_and_deviation_over_its_seeds(loaded: dict) -> None:
    values = [each.metrics["generative"]["precision/10"] for each in loaded["plain"]]
    mean_and_deviation = f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"
    table = tables.build_methods(loaded, PLAN)
    cell = rows_of(table)[TITLES["generative"]].cells[table.columns.index("P@10")]
    assert cell.text == mean_and_deviation


def test_identifiers_are_compared_with_semantic_ones(loaded: dict) -> None:
    rows = rows_of(tables.build_identifiers(loaded, PLAN))
    assert list(rows) == ["semantic", "by chance"]
    assert rows["semantic"].reference and rows["by chance"].cells[1].mark == WORSE


def test_an_ablation_has_the_standard_variant_with_the_same_seeds(loaded: dict) -> None:
    (table,) = tables.build_ablations(loaded, PLAN)
    rows = rows_of(table)
    assert list(rows) == ["semantic", "W = 1", "W = 100"]
    assert all(row.seeds == (0,) for row in table.rows)
    assert rows["W = 1"].cells[1].mark == WORSE and rows["W = 100"].cells[1].mark == ""
    assert "±" not in rows["W = 1"].cells[1].text, "one seed has no deviation"


def test_an_ablation_tells_what_a_variant_makes_of_the_scan_and_of_re_ranking(loaded: dict) -> None:
    gained = {"brute_force_tuned": 0.1, "generative": 0.0, "generative_reranked": 0.2}
    loaded["one"] = [result("one", 0, gained)]
    (table,) = tables.build_ablations(loaded, PLAN)
    cells = dict(zip(table.columns, rows_of(table)["W = 1"].cells, strict=True))
    for metric, key in (("P@10", "precision/10"), ("mAP@R", "map/R")):
        for title, method in (
            ("re-ranked", "generative_reranked"),
            ("brute force", "brute_force_tuned"),
        ):
            value = loaded["one"][0].metrics[method][key]
            cell = cells[f"{title} {metric}"]
            assert cell.text == f"{value:.3f}" and cell.mark == "", "only told, not tested"


def test_a_variant_that_is_as_the_settings_are_has_no_row(loaded: dict) -> None:
    own = loaded["many"][0].facts["params"]
    loaded["many"][0].facts["params"] = own | {"changed": "plain"}
    (table,) = tables.build_ablations(loaded, PLAN)
    assert list(rows_of(table)) == ["semantic", "W = 1"]


def test_of_one_seed_no_deviation_is_spoken_of(loaded: dict) -> None:
    (ablation,) = tables.build_ablations(loaded, PLAN)
    assert "one seed named" in ablation.note and "every seed" not in ablation.note
    assert "deviation over the seeds" in tables.build_methods(loaded, PLAN).note


def test_a_short_list_is_judged_by_a_deep_metric_where_it_is_deep_enough(loaded: dict) -> None:
    gains = {"brute_force_tuned": 0.1, "hnsw": 0.1}
    loaded["plain"] = [result("plain", seed, gains) for seed in PLAN.seeds]
    at = list(tables.build_methods(loaded, PLAN).columns).index("mAP@R")

    def cell() -> Cell:
        return rows_of(tables.build_methods(loaded, PLAN))[TITLES["hnsw"]].cells[at]

    assert cell().text != "–", "20 images are relevant, and 20 are returned"
    loaded["plain"][1].facts["relevant"] = [3, 21]
    assert cell().text == "–" and cell().mark == ""


def test_the_methods_table_tells_what_was_asked_of_what_and_timed_where(loaded: dict) -> None:
    loaded["plain"][2].facts["machine"] = {"device": "cpu", "threads": 1}
    note = tables.build_methods(loaded, PLAN).note
    assert "60 queries on 900 images, of which 3 to 20 are relevant to each." in note
    assert note.endswith("Times: device cpu, threads 2; device cpu, threads 1.")


def test_cells_have_the_figures_behind_their_text(loaded: dict) -> None:
    table = tables.build_methods(loaded, PLAN)
    cell = rows_of(table)[TITLES["generative"]].cells[table.columns.index("hit@10")]
    assert cell.value == over_seeds(loaded["plain"], "generative", "hit/10")
    assert cell.mark == WORSE and cell.p is not None and 0 < cell.p < 0.05
    measure = rows_of(table)[TITLES["brute_force_tuned"]].cells[0]
    assert measure.p is None, "nothing is tested against itself"


def test_whatever_reads_as_the_best_is_the_best(loaded: dict) -> None:
    gains = {"brute_force_tuned": 0.1, "generative": 0.10001, "generative_reranked": 0.0}
    loaded["plain"] = [result("plain", seed, gains) for seed in PLAN.seeds]
    rows = rows_of(tables.build_methods(loaded, PLAN))
    first, second = (rows[TITLES[name]].cells[1] for name in ("brute_force_tuned", "generative"))
    assert first.text.split()[0] == second.text.split()[0] and first.best and second.best


def test_what_has_not_been_run_is_left_out(loaded: dict) -> None:
    names = [table.name for table in tables.build_tables({"plain": loaded["plain"]}, PLAN)]
    assert names == ["methods"]
    kept = {name: loaded[name] for name in ("plain", "many")}
    assert [table.name for table in tables.build_tables(kept, PLAN)] == ["methods", "beams"]


def test_a_method_that_was_not_measured_with_every_seed_has_no_mean(loaded: dict) -> None:
    del loaded["plain"][1].metrics["generative"]
    assert over_seeds(loaded["plain"], "generative", "precision/10") is None


def test_a_method_that_one_seed_measured_has_a_row_of_that_seed(loaded: dict) -> None:
    for part in loaded["plain"][1:]:
        del part.metrics["generative"]
    rows = rows_of(tables.build_methods(loaded, PLAN))
    assert rows[TITLES["generative"]].seeds == (0,)
    assert "±" not in rows[TITLES["generative"]].cells[1].text
    assert rows[TITLES["brute_force_tuned"]].seeds == (0, 1, 2)


def test_differences_have_a_row_a_seed_and_a_column_a_query(loaded: dict) -> None:
    first, second = (
        MethodResults(method, loaded["plain"]) for method in ("generative_reranked", "generative")
    )
    differences = subtract(first, second, "map/R")
    assert differences is not None and differences.shape == (3, 60)
    assert differences == pytest.approx(np.full((3, 60), 0.2))
    assert subtract(first, MethodResults("nothing", loaded["plain"]), "map/R") is None
    assert subtract(first, MethodResults("generative", []), "map/R") is None


def asks_others(result: Result, first: int) -> Result:
    """Return the same values for other queries: those numbered from ``first``, in another order."""
    own = result.queries
    number = pl.col("query").reverse() + first
    named = own.with_columns(sha256=number.cast(pl.String).str.zfill(4))
    return replace(result, queries=named, facts=result.facts | {"asked": f"from {first}"})


def test_ways_of_re_ranking_are_compared_by_re_ranked_figures(loaded: dict) -> None:
    worse = {"brute_force_tuned": 0.1, "generative": 0.0, "generative_reranked": -0.1}
    loaded["one"] = [result("one", seed, worse) for seed in range(3)]
    variants = PLAN.variants | {"one": variant("re-ranking", "another weight")}
    plan = replace(PLAN, variants=variants)
    (table,) = (each for each in tables.build_ablations(loaded, plan) if each.name == "re-ranking")
    assert table.columns[:4] == tuple(f"re-ranked {k}" for k in ("P@1", "P@10", "P@20", "mAP@R"))
    assert [cell.mark for cell in rows_of(table)["another weight"].cells[:4]] == ["▼"] * 4


def test_an_image_that_several_seeds_ask_about_is_one_query(loaded: dict) -> None:
    """Seeds that draw their queries ask about some images twice: 40 of 80 here."""
    both = [loaded["plain"][0], asks_others(loaded["plain"][1], 20)]
    first, second = (
        MethodResults(method, both) for method in ("generative_reranked", "generative")
    )
    differences = subtract(first, second, "map/R")
    assert differences is not None and differences.shape == (2, 80)
    assert np.isnan(differences).sum(axis=1).tolist() == [20, 20]
    assert np.isfinite(differences).all(axis=0).sum() == 40


def test_rows_that_asked_other_queries_are_not_tested_against_each_other(loaded: dict) -> None:
    loaded["one"] = [asks_others(each, 0) for each in loaded["one"]]  # the same ones, reordered
    loaded["many"] = [asks_others(loaded["one"][0], 500)]
    (table,) = tables.build_ablations(loaded, PLAN)
    assert all(cell.mark == "" for row in table.rows for cell in row.cells)


def test_rows_without_a_common_seed_are_not_tested(loaded: dict) -> None:
    loaded["plain"] = loaded["plain"][:1]
    loaded["random"] = loaded["random"][1:]
    table = tables.build_identifiers(loaded, PLAN)
    assert list(rows_of(table)) == ["by chance"], "the standard has none of the seeds"
    assert "▲" not in table.note


def test_a_difference_that_one_seed_does_not_see_has_no_mark(loaded: dict) -> None:
    gains = {"brute_force_tuned": 0.1, "generative": -0.1, "generative_reranked": 0.1}
    same = {"brute_force_tuned": 0.1, "generative": 0.0, "generative_reranked": 0.1}
    loaded["random"] = [result("random", 0, same), *(result("random", s, gains) for s in (1, 2))]
    assert rows_of(tables.build_identifiers(loaded, PLAN))["by chance"].cells[1].mark == ""


def test_a_variant_of_another_subject_that_is_compared_has_a_row(loaded: dict) -> None:
    plan = replace(PLAN, compared=("plain", "random", "many"), ablated=("one",))
    loaded["many"] = [result("many", seed, {"generative": 0.0}) for seed in plan.seeds]
    (table,) = tables.build_ablations(loaded, plan)
    seeds = {row.title: row.seeds for row in table.rows}
    assert seeds == {"semantic": (0, 1, 2), "W = 1": (0,), "W = 100": (0, 1, 2)}


def test_how_images_stand_under_identifiers_is_told(loaded: dict) -> None:
    note = tables.build_identifiers(loaded, PLAN).note
    assert "log-probability of the code, then by cosine" in note
    assert "with a hedge of 5" in note


def test_identifiers_are_tested_re_ranked_too(loaded: dict) -> None:
    lost = {"brute_force_tuned": 0.1, "generative": 0.0, "generative_reranked": -0.1}
    loaded["random"] = [result("random", seed, lost) for seed in range(3)]
    table = tables.build_identifiers(loaded, PLAN)
    marks = dict(zip(table.columns, rows_of(table)["by chance"].cells, strict=True))
    assert marks["P@10"].mark == "" and marks["re-ranked P@10"].mark == tables.WORSE
    assert [title for title in table.columns if title.startswith("re-ranked")] == [
        f"re-ranked {title}" for title in ("P@1", "P@10", "P@20", "mAP@R")
    ]


def test_columns_that_nothing_was_measured_of_are_left_out(loaded: dict) -> None:
    """Without labels there is an agreement with the nearest alone."""
    plain = loaded["plain"]
    for each in plain:
        for method, values in each.metrics.items():
            if method != "queries":
                values |= {"agreement/10": 0.5}
                for key in KEYS:
                    del values[key]
    table = tables.build_methods({"plain": plain}, PLAN)
    assert table.columns == ("agreement@10", "ms search", "ms with encoding", "bytes/image")
    assert summarize(table) == []


def test_results_of_other_code_or_precision_are_not_compared(loaded: dict) -> None:
    first, second, third = (
        replace(each, facts=each.facts | {"source": "a", "code": "c", "machine": {}})
        for each in loaded["plain"]
    )
    assert find_differences(first, second) == []
    second.facts["code"] = "d"
    third.facts["machine"] = {"autocast": "torch.bfloat16"}
    assert find_differences(first, second) == ["code"]
    assert find_differences(first, third) == ["precision"]


def test_only_seeds_of_both_are_alike(loaded: dict) -> None:
    first, second = keep_shared_seeds(loaded["plain"], loaded["one"])
    assert [each.trial.seed for each in first] == [each.trial.seed for each in second] == [0]


TABLE = Table(
    name="odd",
    title="Odd & even",
    columns=("P@1",),
    rows=(
        Row(
            title="50% of_it", cells=(Cell(text="0.5 ± 0.1", mark=BETTER, best=True),), seeds=(0, 1)
        ),
        Row(title="rest", cells=(Cell(text="–"),), seeds=(0,), reference=True),
    ),
    note="p < 0.05",
)


def squeeze(text: str) -> str:
    """Return the text without the padding of columns."""
    return re.sub("-+", "-", re.sub(" +", " ", text))


def test_markdown_says_all_there_is() -> None:
    assert squeeze(formats.to_markdown(TABLE)) == (
        "### Odd & even\n\n"
        "| | P@1 | seeds |\n"
        "|:-|-:|-:|\n"
        f"| 50% of_it | **0.5 ± 0.1** {BETTER} | 0, 1 |\n"
        "| rest | – | 0 |\n\n"
        "p < 0.05\n"
    )


def test_latex_escapes_what_it_must() -> None:
    text = squeeze(formats.to_latex(TABLE))
    assert r"50\% of\_it & \textbf{0.5 $\pm$ 0.1} $\blacktriangle$ & 0, 1 \\" in text
    assert r"\caption{Odd \& even. p $<$ 0.05}" in text
    assert text.isascii()
    assert text.count(r"\begin") == text.count(r"\end") == 2
