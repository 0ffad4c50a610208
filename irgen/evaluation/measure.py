"""Run search methods on the same queries; write their metrics, curves, runs and latency.

To add a metric, see ``metrics.py``; to add a method, ``methods.py``.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
import torch
from tqdm import tqdm

from irgen.compute.batches import full_batches
from irgen.compute.machine import Machine, return_freed_memory
from irgen.evaluation import latency, metrics, runs
from irgen.evaluation.methods import Method
from irgen.evaluation.query_set import QuerySet, RankedLists
from irgen.files.atomic import atomic
from irgen.files.digests import file_digest
from irgen.files.records import write_json
from irgen.files.sealed import write_parquet

CURVES = {
    "precision": {"method": pl.String, "k": pl.Int64, "precision": pl.Float64},
    "recall": {"method": pl.String, "recall": pl.Float64, "precision": pl.Float64},
}


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """Setup of an evaluation: methods are measured on ``query_set``, at ``cutoffs``, in batches of
    ``batch_size`` queries on ``machine``.

    ``timing_images`` returns the pixels (any, C, H, H) uint8 to time encoders with. Without labels,
    methods are compared with the results of what ``build_reference`` returns. ``copies`` (n, 2):
    rows of queries and of near copies of them in the database.
    """

    query_set: QuerySet
    cutoffs: tuple[int, ...]
    batch_size: int
    machine: Machine
    timing_images: Callable[[], np.ndarray]
    build_reference: Callable[[], Method]
    copies: np.ndarray = field(default_factory=lambda: np.empty((0, 2), np.int64))


class Scores:
    """Metrics of every method, query by query, and its curves."""

    def __init__(self) -> None:
        self.curves: dict[str, list[tuple[str, float, float]]] = {name: [] for name in CURVES}
        self.queries: list[pl.DataFrame] = []

    def add(
        self,
        method: str,
        hits: metrics.Hits,
        deep_hits: metrics.Hits,
        positives: metrics.Counts,
        cutoffs: tuple[int, ...],
    ) -> dict[str, float]:
        """Score a method's relevant results and return the means. ``hits`` (Q, largest cut-off);
        ``deep_hits`` (Q, depth), for map@R and recall."""
        precisions = metrics.precision_curve(hits, positives, max(cutoffs))
        self.curves["precision"] += [(method, k, p) for k, p in enumerate(precisions, start=1)]
        recalls = zip(metrics.RECALLS, metrics.recall_curve(deep_hits, positives), strict=True)
        self.curves["recall"] += [(method, recall, p) for recall, p in recalls]
        answerable = positives > 0
        values = metrics.by_query(hits[answerable], positives[answerable], cutoffs)
        values["map/R"] = metrics.average_precision_at_r(
            deep_hits[answerable], positives[answerable]
        )
        columns = {key: column.astype(np.float32) for key, column in values.items()}
        rows = {"method": [method] * int(answerable.sum()), "query": np.flatnonzero(answerable)}
        self.queries.append(pl.DataFrame(rows | columns))
        return metrics.means(values)

    def write(self, folder: Path) -> None:
        """Write queries.parquet, precision.csv and recall.csv."""
        for curve, schema in CURVES.items():
            with atomic(folder / f"{curve}.csv") as temporary:
                table = pl.DataFrame(self.curves[curve], schema=schema, orient="row")
                table.write_csv(temporary)
        empty = pl.DataFrame(schema={"method": pl.String, "query": pl.Int64})
        write_parquet(
            folder / "queries.parquet", pl.concat(self.queries) if self.queries else empty
        )


def measure_methods(
    builders: Mapping[str, Callable[[], Method | None]],
    config: EvalConfig,
    codes: np.ndarray,
    folder: Path,
    latency_path: Path,
) -> dict[str, float]:
    """Measure every method that applies; return the metrics as ``method/metric``. A method is
    built, measured and dropped before the next one.

    Writes to ``folder``: metrics.json, queries.parquet (the metrics of each answerable query),
    precision.csv, recall.csv and ``runs/<method>.parquet``. Writes to ``latency_path``: the times,
    which differ from machine to machine. ``codes`` (N, M) are the database's, for the runs.

    Metrics at a cut-off are of a search for as many images as the largest cut-off; this search is
    timed. map@R and recall are of a second, deeper search. If no query has a label, curves and
    queries are empty and the metric is ``agreement/k``, the share of the first k results of
    the reference that are among the first k. If there are copies, ``finds_copies`` is the
    share of them that is found, at the cut-off nearest to 10. ``queries/total``: number of queries
    that the measured ones, ``queries/count``, are a sample of.
    """
    query_set, pixels = config.query_set, config.timing_images()
    encode_ms: dict[Callable, float] = {}  # milliseconds a query of each different encoder
    k = max(config.cutoffs)
    depths = [query_set.search_depth(depth) for depth in sorted({k, query_set.depth})]
    reference = None
    if not query_set.labelled:
        lists, _ = search_all(config.build_reference(), depths[:1], config, "reference")
        reference = query_set.drop_self(lists[0], k).ids
    counts = metrics.count_queries(query_set.positives) | {"total": query_set.total}
    if len(config.copies):
        counts["with_copy"] = len(np.unique(config.copies[:, 0]))
    quality: dict[str, Mapping[str, float]] = {"queries": counts}
    times, scores = {}, Scores()
    for name, build in builders.items():
        method = build()
        if method is None:
            continue
        lists, search_ms = search_all(method, depths, config, name)
        if (encode := method.encoder.encode) not in encode_ms:
            encode_ms[encode] = latency.time_encoder(
                encode, pixels, config.batch_size, config.machine
            )
        total_ms = search_ms + encode_ms[encode]
        times[name] = {"search_ms": search_ms, "total_ms": total_ms}
        top = query_set.drop_self(lists[0], k)
        hits = query_set.mark_relevant(top.ids)
        if reference is None:
            deep = query_set.drop_self(lists[-1], query_set.depth)
            deep_hits = query_set.mark_relevant(deep.ids)
            values = scores.add(name, hits, deep_hits, query_set.positives, config.cutoffs)
        else:
            values = metrics.agreement(top.ids, reference, config.cutoffs)
        values |= metrics.finds_copies(top.ids, config.copies, metrics.main_cutoff(config.cutoffs))
        quality[name] = (
            values | dict(method.extra_metrics) | {"bytes_per_image": method.bytes_per_image}
        )
        write_parquet(folder / "runs" / f"{name}.parquet", runs.to_table(top, hits, codes))
        del method, encode
        return_freed_memory()
    scores.write(folder)
    write_json(folder / "metrics.json", quality)
    write_json(
        latency_path,
        {
            "metrics_digest": file_digest(folder / "metrics.json"),
            "machine": latency.describe_machine(config.machine, config.batch_size),
            "methods": times,
        },
    )
    return {f"{name}/{key}": value for name, row in quality.items() for key, value in row.items()}


@torch.inference_mode()
def search_all(
    method: Method, depths: Sequence[int], config: EvalConfig, title: str
) -> tuple[list[RankedLists], float]:
    """Search with all queries, once for each number of results in ``depths``.

    Returns the lists for each depth, and the median milliseconds a query of the first search, over
    the first batches. A batch is timed after it has been searched once: first calls do not count.
    """
    machine, size = config.machine, config.batch_size
    parts: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in depths]
    times = []
    batches = full_batches(len(config.query_set.queries), size)
    for i, (rows, new) in enumerate(tqdm(batches, title, unit="batch", leave=False, disable=None)):
        encoded = method.encoder.select(rows)
        for depth, part in zip(depths, parts, strict=True):
            result = method.search(encoded, depth)
            part.append((result.ids[:new].cpu().numpy(), result.scores[:new].cpu().numpy()))
        if i < latency.TIMED_BATCHES:
            started = latency.now(machine)
            method.search(encoded, depths[0])
            times.append(1000 * (latency.now(machine) - started) / size)
    lists = [RankedLists(*map(np.concatenate, zip(*part, strict=True))) for part in parts]
    return lists, statistics.median(times)
