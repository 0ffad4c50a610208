"""Group queries by how hard they are, and build the table of a comparison by these groups.

The groups do not depend on the method that is measured: they follow from labels and from the
query's nearest images by brute force.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from irgen.catalog.table import read_table
from irgen.files.sealed import read_parquet
from irgen.report.comparison import TITLES
from irgen.search.nearby import COPY_COSINE
from irgen.study import gains, results
from irgen.study.gains import CLASSIFIED
from irgen.study.results import Result, Spread
from irgen.study.tables import BRUTE_FORCE, INDEX, Cell, Row, Table, format_spread
from irgen.study.trial import results_folder

GROUPS = {
    "all": "all queries",
    "known": "known label",
    "unknown": "unknown label",
    "copy": "near-duplicate in the database",
    "doubtful": "doubtful",
    "few": "few images of its label",
    "some": "some images of its label",
    "many": "many images of its label",
}
FEWEST = 10  # queries of a group
NEAREST, LEAD = 10, 2  # images that vote for their label; a lead by this many votes is no lead
METHODS = (BRUTE_FORCE, CLASSIFIED, INDEX)
METRICS = {"P@10": "precision/10", "hit@10": "hit/10"}
NOTE = (
    f"Known and unknown: the models were or were not trained on images of the query's label. "
    f"Near-duplicate: the cosine of the nearest image is {COPY_COSINE:g} or more. Doubtful: among "
    f"the {NEAREST} nearest images the most frequent label leads the next by at most {LEAD}. Few, "
    "some, many: labels by their number of images, in thirds. Groups of fewer than "
    f"{FEWEST} queries have no row. Gain: the served index less brute force, with the interval "
    "that holds 95 % of the differences by a paired bootstrap over queries and seeds; ▲ ▼: the "
    "interval is above or below 0."
)
Groups = dict[str, pl.Series]  # the content hashes of each group's queries


def load_groups(root: Path, result: Result) -> Groups:
    """Return the groups of a trial's queries; the trial measured brute force."""
    folder = results_folder(root, result.trial)
    queries, database = (
        read_table(folder / f"{name}.table.parquet") for name in ("queries", "database")
    )
    run = read_parquet(folder / "runs" / f"{BRUTE_FORCE}.parquet")
    return group_queries(queries, database, run, result.facts["taught"])


def group_queries(
    queries: pl.DataFrame, database: pl.DataFrame, run: pl.DataFrame, taught: list[str]
) -> Groups:
    """Return the groups of ``queries`` (sha256, label) that search ``database`` (label): all, and
    those that some queries do not belong to.

    ``run``: brute force (query, rank, item, score), as rows of the two tables. ``taught``: labels
    that models were trained on.
    """
    known = pl.col("label").is_in(pl.Series(taught, dtype=pl.String).implode()).fill_null(False)
    rows = queries.select("sha256", "label").with_row_index("query")
    nearest = run.filter(pl.col("rank") <= NEAREST)
    copies = nearest.filter((pl.col("rank") == 1) & (pl.col("score") >= COPY_COSINE))["query"]
    chosen = {
        "all": pl.lit(True),
        "known": known,
        "unknown": ~known & pl.col("label").is_not_null(),
        "copy": pl.col("query").is_in(copies.implode()),
        "doubtful": pl.col("query").is_in(find_doubtful(nearest, database["label"]).implode()),
    }
    groups = {name: rows.filter(condition)["sha256"] for name, condition in chosen.items()}
    groups |= group_by_size(rows, database["label"])
    return {
        name: sha256s
        for name, sha256s in groups.items()
        if name == "all" or len(sha256s) < len(queries)
    }


def find_doubtful(nearest: pl.DataFrame, labels: pl.Series) -> pl.Series:
    """Return the queries among whose ``nearest`` images (query, item) no label leads by more than
    LEAD. ``labels`` (N,): of the database."""
    votes = nearest.select("query", label=labels.gather(nearest["item"])).drop_nulls()
    counts = votes.group_by("query", "label").len().sort("len", descending=True)
    leads = counts.group_by("query").agg(
        lead=pl.col("len").first().cast(pl.Int64)
        - pl.col("len").get(1, null_on_oob=True).fill_null(0)
    )
    return leads.filter(pl.col("lead") <= LEAD)["query"]


def group_by_size(queries: pl.DataFrame, labels: pl.Series) -> Groups:
    """Group ``queries`` (sha256, label) by how many of the database's ``labels`` (N,) are theirs:
    the labels asked for in thirds. Nothing if all labels have as many."""
    sizes = labels.drop_nulls().value_counts(name="size").rename({labels.name: "label"})
    sized = queries.join(sizes, on="label")
    asked = sized.unique("label")["size"]
    if not len(asked) or asked.min() == asked.max():
        return {}
    first, second = (asked.quantile(share, "lower") for share in (1 / 3, 2 / 3))
    size = pl.col("size")
    conditions = {
        "few": size <= first,
        "some": (size > first) & (size <= second),
        "many": size > second,
    }
    return {name: sized.filter(condition)["sha256"] for name, condition in conditions.items()}


def build_difficulty(
    name: str, title: str, measured: list[Result], groups: list[Groups]
) -> list[Table]:
    """Return the table with a row for each group; none if a single row would be left. ``groups``
    are row-aligned with ``measured``, a result for each seed."""
    rows = []
    for group, words in GROUPS.items():
        parts = [
            _keep(result, own.get(group)) for result, own in zip(measured, groups, strict=True)
        ]
        chosen = [part for part in parts if part is not None]
        if chosen:
            rows.append(_build_row(words, chosen))
    columns = ("queries", *(f"{metric}: {TITLES[m]}" for metric in METRICS for m in METHODS))
    columns += tuple(f"gain in {metric}" for metric in METRICS)
    table = Table(name=name, title=title, columns=columns, rows=tuple(rows), note=NOTE)
    return [table] if len(rows) > 1 else []


def _keep(result: Result, sha256s: pl.Series | None) -> Result | None:
    """Return the result of these queries alone; None if they are too few."""
    if sha256s is None:
        return None
    queries = result.queries.filter(pl.col("sha256").is_in(sha256s.implode()))
    if queries["sha256"].n_unique() < FEWEST:
        return None
    return replace(result, queries=queries)


def _build_row(title: str, chosen: list[Result]) -> Row:
    """Return the row of a group; ``chosen``: results of the group's queries."""
    counts = results.spread([float(result.queries["sha256"].n_unique()) for result in chosen])
    cells = [Cell(text=f"{counts.mean:,.0f}", value=counts)]
    for key in METRICS.values():
        for method in METHODS:
            value = _mean(chosen, method, key)
            cells.append(Cell(text=format_spread(value, ".3f"), value=value))
    cells += [gains.measure_gain(chosen, BRUTE_FORCE, key) for key in METRICS.values()]
    seeds = tuple(result.trial.seed for result in chosen)
    return Row(title=title, cells=tuple(cells), seeds=seeds)


def _mean(chosen: list[Result], method: str, key: str) -> Spread | None:
    """Return the mean of a metric over the queries, over the seeds; None unless all measured it."""
    tables = [results.values_by_query(result, method, key) for result in chosen]
    means = [float(np.mean(table["value"].to_numpy())) for table in tables if table is not None]
    return results.spread(means) if len(means) == len(tables) else None
