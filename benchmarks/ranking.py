"""Compare ways to rank for known and unknown classes: brute force, classify then search, the index.

    python benchmarks/ranking.py params.yaml --seeds 0 1 2

``params.yaml``: as ``irgen init`` writes it for a collection with labels, such as the one that
``drawn_catalogue.py`` draws. For each seed a fifth of
the labels is held out: the models are trained without them, then all images join the database, as
an index meets them. Queries of other labels are *known*, those of the labels held out *unknown*. A
query never counts itself. Prints a Markdown table of means over the seeds, how likely a difference
of the index to brute force and to classifying is by chance, by a paired permutation test over the
queries, and what the ranking adds to the time of a search.
"""

import argparse
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
from irgen.files.workspace import Workspace
from irgen.index.index import Index
from irgen.params import Params, load
from irgen.search import engine
from irgen.search.engine import QueryFeatures
from irgen.study.significance import p_value

HELD_OUT = 0.2  # of the labels
DEPTH = 2000  # hits of a query
HEDGES = (0.0, 20.0)  # besides the settings' own
CUTOFFS = (1, 10, 20)
SHOWN = ("precision/1", "precision/10", "precision/20", "map/R", "hit/10")
REFERENCE, CLASSIFIED, SERVED = "brute force", "classify, then search", "the served index"
TURNS = Repeats(seconds=10, minimum=5, maximum=200)
Values = dict[str, np.ndarray]  # each metric of all queries, (Q,)


def train(params: Params, folder: Path) -> tuple[Params, Workspace, np.ndarray]:
    """Train without the held-out labels and add them; return parameters, workspace and which
    queries (Q,) are known."""
    images = list_images(params, folder)
    labels = images["label"].unique().sort().to_list()
    order = np.random.default_rng(params.seed).permutation(len(labels))
    held_out = [labels[i] for i in order[: max(1, round(HELD_OUT * len(labels)))]]
    source, seed = folder / f"images-{params.seed}.csv", folder / f"seed-{params.seed}"
    workspace = Workspace(data=seed / "data", cache=folder / "cache", reports=seed / "reports")
    listed = replace(
        params,
        download=replace(params.download, source=str(source)),
        catalog=replace(params.catalog, format="list", protocol="given", training_revision=1),
    )
    images = images.drop("sha256")
    images.filter(~pl.col("label").is_in(held_out)).write_csv(source)
    run_stages((*PREPARED_BY, "retriever"), listed, workspace)
    images.write_csv(source)
    run_stages((*ADDED_BY, "index"), listed, workspace)
    queries = read_table(workspace.existing("catalog", "queries.parquet"))
    return listed, workspace, ~queries["label"].is_in(held_out).to_numpy()


def measure(params: Params, workspace: Workspace) -> dict[str, Values]:
    """Return the metrics of all queries, by method."""
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
    results = {}
    for name, rows in ranked.items():
        lists = query_set.drop_self(RankedLists(rows, np.zeros(rows.shape, np.float32)), depth - 1)
        relevant = query_set.mark_relevant(lists.ids)
        results[name] = metrics.by_query(relevant, query_set.positives, CUTOFFS)
    return results


def put_first(rows: np.ndarray, predicted: pl.Series, labels: pl.Series) -> np.ndarray:
    """Return ranked ``rows`` (Q, k) with those of the predicted label (Q,) first, else in their
    order."""
    same = labels.to_numpy()[rows] == predicted.to_numpy()[:, None]
    return np.take_along_axis(rows, np.argsort(~same, axis=1, kind="stable"), 1)


def render(title: str, results: list[dict[str, Values]], chosen: list[np.ndarray]) -> str:
    """Return a Markdown table of the ``chosen`` queries of each seed, and the p-values."""
    lines = ["", f"{title} | {' | '.join(SHOWN)}", "--- " + "| ---: " * len(SHOWN)]
    for name in results[0]:
        cells = []
        for key in SHOWN:
            seeds = zip(results, chosen, strict=True)
            mean = np.mean([values[name][key][part].mean() for values, part in seeds])
            cells.append(f"{mean:.3f}")
        lines.append(f"{name} | {' | '.join(cells)}")
    for rival in (REFERENCE, CLASSIFIED):
        p_values = [f"{test(results, chosen, rival, key):.3f}" for key in SHOWN]
        lines.append(f"p, index and {rival} | {' | '.join(p_values)}")
    return "\n".join(f"| {line} |" if line else "" for line in lines)


def test(results: list[dict[str, Values]], chosen: list[np.ndarray], rival: str, key: str) -> float:
    """Return how likely a difference in ``key`` as large as that to the ``rival`` is by chance."""
    served, other = (
        np.concatenate([r[name][key][part] for r, part in zip(results, chosen, strict=True)])
        for name in (SERVED, rival)
    )
    return p_value(served, other)


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
    results, known = [], []
    for seed in options.seeds:
        params = replace(load(options.params), seed=seed)
        listed, workspace, part = train(params, options.folder)
        results.append(measure(listed, workspace))
        known.append(part)
    print(render("known classes", results, known))
    print(render("unknown classes", results, [~part for part in known]))
    print(f"\n{time_ranking(listed, workspace)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
