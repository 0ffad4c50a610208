"""Compare ways to rank for known and unknown classes: brute force, classify then search, the index.

    python benchmarks/ranking.py params.yaml --seeds 0 1 2

``params.yaml``: as ``irgen init`` writes it for a collection with labels, such as the one that
``drawn_catalogue.py`` draws. For each seed a fifth of
the labels is held out: the models are trained without them, then all images join the database, as
an index meets them. Queries of other labels are *known*, those of the labels held out *unknown*. A
query never counts itself. Prints a Markdown table of means over the seeds, how likely a difference
of the index to brute force and to classifying is by chance, by a paired bootstrap over queries and
seeds, and what the ranking adds to the time of a search. A seed that was measured before, with the
same parameters and commit, is not trained again.
"""

import argparse
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import torch
from inserts import ADDED_BY, PREPARED_BY, list_images, run_stages
from speed.stopwatch import Repeats, time_interleaved

from irgen.catalog.table import read_table
from irgen.encoding.encode import open_encoding
from irgen.encoding.query_features import encode_queries, select_queries
from irgen.evaluation import metrics
from irgen.evaluation.query_set import QuerySet, RankedLists
from irgen.files.digests import digest
from irgen.files.workspace import Workspace, git
from irgen.index.index import Index
from irgen.params import Params, load
from irgen.params.strict import flatten
from irgen.search import engine
from irgen.search.engine import QueryFeatures
from irgen.study.significance import p_value, resample

HELD_OUT = 0.2  # of the labels
DEPTH = 2000  # hits of a query
HEDGES = (0.0, 20.0)  # besides the settings' own
CUTOFFS = (1, 10, 20)
SHOWN = ("precision/1", "precision/10", "precision/20", "map/R", "hit/10")
REFERENCE, CLASSIFIED, SERVED = "brute force", "classify, then search", "the served index"
TURNS = Repeats(seconds=10, minimum=5, maximum=200)


def measure_seed(params: Params, workspace: Workspace, source: Path) -> pl.DataFrame:
    """Return a row for each query and method: seed, query, whether it is known, and metrics."""
    settings = digest(flatten(params), git("rev-parse", "HEAD"))[:16]
    path = workspace.data / f"measured-{settings}.parquet"
    if path.exists():
        return pl.read_parquet(path)
    known = train(params, workspace, source)
    measured = measure(list_source(params, source), workspace).join(known, on="query")
    measured.with_columns(seed=params.seed).write_parquet(path)
    return pl.read_parquet(path)


def list_source(params: Params, source: Path) -> Params:
    """Return the parameters of a run whose images the list ``source`` names."""
    return replace(
        params,
        download=replace(params.download, source=str(source)),
        catalog=replace(params.catalog, format="list", protocol="given", training_revision=1),
    )


def train(params: Params, workspace: Workspace, source: Path) -> pl.DataFrame:
    """Train without the held-out labels and add them; return which queries are known. ``source``:
    the list of images to write."""
    images = list_images(params, source.parent)
    labels = images["label"].unique().sort().to_list()
    order = np.random.default_rng(params.seed).permutation(len(labels))
    held_out = [labels[i] for i in order[: max(1, round(HELD_OUT * len(labels)))]]
    images, listed = images.drop("sha256"), list_source(params, source)
    shutil.rmtree(workspace.data, ignore_errors=True)  # of an earlier training
    images.filter(~pl.col("label").is_in(held_out)).write_csv(source)
    run_stages((*PREPARED_BY, "retriever"), listed, workspace)
    images.write_csv(source)
    run_stages((*ADDED_BY, "index"), listed, workspace)
    queries = read_table(workspace.existing("catalog", "queries.parquet"))
    return queries.select(query="id", known=~pl.col("label").is_in(held_out))


def measure(params: Params, workspace: Workspace) -> pl.DataFrame:
    """Return a row for each query and method, with its metrics."""
    queries, database = (
        read_table(workspace.existing("catalog", f"{name}.parquet"))
        for name in ("queries", "database")
    )
    depth = min(DEPTH, len(database))
    query_set = QuerySet.build(queries, database, max(CUTOFFS))
    row_of = {name: row for row, name in enumerate(database["id"])} | {None: -1}
    with Index.open(workspace.stage("index")) as index:
        features = encode_queries(
            index.models, queries["sha256"].to_list(), open_encoding(params.compute, workspace)
        )
        options = replace(index.options(depth), beams=index.options(1).beams)
        hits = {
            REFERENCE: index.search_brute_force(features, depth),
            SERVED: index.search(features, depth, options),
        }
        for hedge in HEDGES:
            hits[f"hedge {hedge:g}"] = index.search(features, depth, replace(options, hedge=hedge))
        find_rows = np.vectorize(row_of.get, otypes=[np.int64])
        ranked = {name: find_rows(found.ids) for name, found in hits.items()}
        with torch.inference_mode():
            likeliest = index.models.tokenizer.classify(features.embedding).argmax(1).tolist()
        predicted = pl.Series([index.models.labels[i] for i in likeliest])
        ranked[CLASSIFIED] = put_first(ranked[REFERENCE], predicted, database["label"])
    parts = []
    for name, rows in ranked.items():
        lists = query_set.drop_self(RankedLists(rows, np.zeros(rows.shape, np.float32)), depth - 1)
        relevant = query_set.mark_relevant(lists.ids)
        values = metrics.by_query(relevant, query_set.positives, CUTOFFS)
        columns = {"query": queries["id"], "method": [name] * len(queries)}
        parts.append(pl.DataFrame(columns | {key: values[key] for key in SHOWN}))
    return pl.concat(parts)


def put_first(rows: np.ndarray, predicted: pl.Series, labels: pl.Series) -> np.ndarray:
    """Return ranked ``rows`` (Q, k) with those of the predicted label (Q,) first, else in their
    order."""
    same = labels.to_numpy()[rows] == predicted.to_numpy()[:, None]
    return np.take_along_axis(rows, np.argsort(~same, axis=1, kind="stable"), 1)


def render(title: str, measured: pl.DataFrame) -> str:
    """Return a Markdown table of means over the seeds, and the p-values."""
    lines = ["", f"{title} | {' | '.join(SHOWN)}", "--- " + "| ---: " * len(SHOWN)]
    of_seeds = measured.group_by("method", "seed", maintain_order=True).agg(pl.col(SHOWN).mean())
    means = of_seeds.group_by("method", maintain_order=True).agg(pl.col(SHOWN).mean())
    for name, *values in means.rows():
        lines.append(f"{name} | {' | '.join(f'{value:.3f}' for value in values)}")
    for rival in (REFERENCE, CLASSIFIED):
        p_values = [f"{test(measured, rival, key):.3f}" for key in SHOWN]
        lines.append(f"p, index and {rival} | {' | '.join(p_values)}")
    return "\n".join(f"| {line} |" if line else "" for line in lines)


def test(measured: pl.DataFrame, rival: str, key: str) -> float:
    """Return how likely a difference in ``key`` as large as that to the ``rival`` is by chance."""
    served, other = (
        measured.filter(method=name).select("seed", "query", key) for name in (SERVED, rival)
    )
    pairs = served.join(other, on=["seed", "query"], suffix=" of the rival")
    gains = pairs.with_columns(gain=pl.col(key) - pl.col(f"{key} of the rival"))
    wide = gains.pivot("query", index="seed", values="gain").drop("seed")  # (S, Q)
    return p_value(resample(wide.to_numpy()))


def time_ranking(params: Params, workspace: Workspace) -> str:
    """Time searches for ten images, ranked by label and by cosine, in turns."""
    queries = read_table(workspace.existing("catalog", "queries.parquet"))
    with Index.open(workspace.stage("index")) as index, torch.inference_mode():
        encoding = open_encoding(params.compute, workspace)
        features = encode_queries(index.models, queries["sha256"].to_list(), encoding)
        snapshot, ranker = index.snapshot(index.view), index.ranker(index.view)
        options, decoder = index.options(10), index.decoder
        lines = []
        for batch in (1, 32):

            def take(number: int, size: int = batch) -> QueryFeatures:
                rows = (torch.arange(size) + number * size) % len(queries)
                return select_queries(features, rows, index.device)

            calls = [
                lambda number, ranker=ranker: engine.search(
                    decoder, take(number), snapshot, 10, options, ranker
                )
                for ranker in (ranker, None)
            ]
            ranked, plain = (
                times.milliseconds(batch)["p50"] for times in time_interleaved(calls, TURNS)
            )
            lines.append(f"batches of {batch}: {ranked:.2f} ms a query ranked, {plain:.2f} not")
    return "\n".join(lines)


def main() -> int:
    """Train and measure the seeds one after the other."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("params", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--folder", type=Path, default=Path(".cache/ranking"))
    options = parser.parse_args()
    parts = []
    for seed in options.seeds:
        params, folder = replace(load(options.params), seed=seed), options.folder / f"seed-{seed}"
        cache, reports = options.folder / "cache", folder / "reports"
        workspace = Workspace(data=folder / "data", cache=cache, reports=reports)
        parts.append(measure_seed(params, workspace, options.folder / f"images-{seed}.csv"))
    measured = pl.concat(parts)
    print(render("known classes", measured.filter("known")))
    print(render("unknown classes", measured.filter(~pl.col("known"))))
    print(f"\n{time_ranking(params, workspace)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
