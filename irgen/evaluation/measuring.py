"""Methods on the same queries: asked, timed, judged, and written as runs, metrics and latency."""

import platform
import re
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
from tqdm import tqdm

from irgen.catalog.table import read_table
from irgen.compute import Machine
from irgen.encoding.batches import full_batches
from irgen.evaluation import metrics, runs
from irgen.evaluation.methods import Encode, Method
from irgen.files import atomic, file_digest, read_json, write_json
from irgen.workspace import Workspace

DEEPEST = 1000  # ranks; map@R of a label with more positives counts the rest as missed
TIMED = 2  # batches whose times count
Lists = tuple[np.ndarray, np.ndarray]  # ids and scores (Q, k) each
BF16 = ("amx_bf16", "avx512_bf16")  # flags of a CPU, the faster first
CURVES = {
    "precision": {"method": pl.String, "k": pl.Int64, "precision": pl.Float64},
    "recall": {"method": pl.String, "recall": pl.Float64, "precision": pl.Float64},
}


@dataclass(frozen=True)
class QuerySet:
    """Queries and database as the catalogue has them, and how deep a result list is judged."""

    queries: pl.DataFrame
    database: pl.DataFrame
    positives: np.ndarray  # (Q,) int64, R of each query
    depth: int

    @property
    def hashes(self) -> tuple[pl.Series, pl.Series]:
        """Content hashes of queries and database."""
        return self.queries["sha256"], self.database["sha256"]

    def answered(self, lists: Lists, k: int) -> tuple[np.ndarray, ...]:
        """The first k of a method's lists without the queries themselves: ids, scores and hits
        (Q, k)."""
        ids, scores = runs.without_self(*lists, *self.hashes, k)
        return ids, scores, runs.relevance(ids, self.queries["label"], self.database["label"])


def read_questions(workspace: Workspace, at_least: int) -> QuerySet:
    """The catalogue's queries and database; lists are judged down to R, to ``at_least`` and at most
    to DEEPEST."""
    queries, database = (
        read_table(workspace.existing("catalog", f"{role}.parquet"))
        for role in ("queries", "database")
    )
    positives = runs.positives(
        queries["label"], queries["sha256"], database["label"], database["sha256"]
    )
    depth = max(at_least, min(int(positives.max(initial=1)), DEEPEST))
    return QuerySet(queries, database, positives, depth)


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """How methods are asked: ``questions``, by which ``cutoffs`` they are judged, in batches of
    ``batch_size`` queries on ``machine``; ``images`` gives the first queries' pixels (any, C, H, H)
    uint8, for the encoders to be timed with; ``nearest`` is whose lists stand in for labels where
    there are none; ``timings`` is where the encoders' times are kept, None if they are measured
    each time."""

    questions: QuerySet
    cutoffs: tuple[int, ...]
    batch_size: int
    machine: Machine
    images: Callable[[], np.ndarray]
    nearest: Method
    timings: Path | None = None


class Scores:
    """What labels say of every method: values of each query, and curves."""

    def __init__(self) -> None:
        self.curves: dict[str, list[tuple[str, float, float]]] = {name: [] for name in CURVES}
        self.queries: list[pl.DataFrame] = []

    def add(
        self,
        name: str,
        hits: tuple[metrics.Hits, metrics.Hits],
        positives: metrics.Counts,
        cutoffs: tuple[int, ...],
    ) -> dict[str, float]:
        """Judges a method and returns the means. ``hits`` = (of lists as deep as the largest
        cut-off, of those as deep as map@R and recall need)."""
        top, deep = hits
        precisions = metrics.precision_curve(top, positives, max(cutoffs))
        self.curves["precision"] += [(name, k, p) for k, p in enumerate(precisions, start=1)]
        recalls = zip(metrics.RECALLS, metrics.recall_curve(deep, positives), strict=True)
        self.curves["recall"] += [(name, recall, p) for recall, p in recalls]
        some = positives > 0
        values = metrics.by_query(top[some], positives[some], cutoffs)
        values["map/R"] = metrics.average_precision_at_r(deep[some], positives[some])
        columns = {key: column.astype(np.float32) for key, column in values.items()}
        rows = {"method": [name] * int(some.sum()), "query": np.flatnonzero(some)}
        self.queries.append(pl.DataFrame(rows | columns))
        return metrics.means(values)

    def write(self, folder: Path) -> None:
        """Writes queries.parquet, precision.csv and recall.csv."""
        for curve, schema in CURVES.items():
            with atomic(folder / f"{curve}.csv") as temporary:
                table = pl.DataFrame(self.curves[curve], schema=schema, orient="row")
                table.write_csv(temporary)
        empty = pl.DataFrame(schema={"method": pl.String, "query": pl.Int64})
        with atomic(folder / "queries.parquet") as temporary:
            (pl.concat(self.queries) if self.queries else empty).write_parquet(temporary)


def measure(
    compared: Mapping[str, Method], exam: EvalConfig, codes: np.ndarray, folder: Path, latency: Path
) -> dict[str, float]:
    """Asks every method all questions and writes into ``folder``: metrics.json, queries.parquet
    (the same of each query that has an answer), precision.csv, recall.csv and
    ``runs/<method>.parquet``; and ``latency``, which differs from machine to machine.

    ``codes`` (N, M) are the database's, for the runs. Returns the metrics as ``method/metric``.
    What is judged at a cut-off is a search for as many images as the largest one, which is what is
    timed; map@R and recall are of another search, which may look further as it is asked for more.
    Where no query has a label, nothing that needs one is there, and curves and queries are empty;
    ``agreement/k``, the share of the first k of ``exam.nearest`` that are among the first k, is
    told instead.
    """
    questions, machine = exam.questions, exam.machine
    encoders = list(dict.fromkeys(method.encoder.encode for method in compared.values()))
    encode_ms = dict(zip(encoders, encoding_times(encoders, exam), strict=True))
    shown, depth = max(exam.cutoffs), questions.depth
    wanted = [runs.search_depth(k, *questions.hashes) for k in sorted({shown, depth})]
    count, batch = len(questions.queries), (exam.batch_size, machine)
    found: dict[str, Mapping[str, float]] = {"queries": metrics.count_queries(questions.positives)}
    labelled = questions.queries["label"].null_count() < len(questions.queries)
    if not labelled:
        nearest, _ = ask(exam.nearest, count, wanted[:1], batch, "nearest")
        like, _, _ = questions.answered(nearest[0], shown)
    times, judged = {}, Scores()
    for name, method in compared.items():
        lists, search_ms = ask(method, count, wanted, batch, name)
        total_ms = search_ms + encode_ms[method.encoder.encode]
        times[name] = {"search_ms": search_ms, "total_ms": total_ms}
        ids, scores, hits = questions.answered(lists[0], shown)
        if labelled:
            both = hits, questions.answered(lists[-1], depth)[2]
            quality = judged.add(name, both, questions.positives, exam.cutoffs)
        else:
            quality = metrics.agreement(ids, like, exam.cutoffs)
        found[name] = quality | dict(method.about) | {"bytes_per_image": method.bytes_per_image}
        with atomic(folder / "runs" / f"{name}.parquet") as temporary:
            runs.to_table(ids, scores, hits, codes).write_parquet(temporary)
    judged.write(folder)
    write_json(folder / "metrics.json", found)
    about = {
        "metrics_digest": file_digest(folder / "metrics.json"),
        "machine": describe(machine, exam.batch_size),
        "methods": times,
    }
    write_json(latency, about)
    return {f"{name}/{key}": value for name, row in found.items() for key, value in row.items()}


def encoding_times(encoders: Iterable[Encode], exam: EvalConfig) -> list[float]:
    """Milliseconds a query that each encoder takes: those that were kept, or measured now."""
    if exam.timings is not None and exam.timings.exists():
        return read_json(exam.timings)
    found = time_encoders(encoders, exam.images(), exam.batch_size, exam.machine)
    if exam.timings is not None:
        write_json(exam.timings, found)
    return found


@torch.inference_mode()
def time_encoders(
    encoders: Iterable[Encode], images: np.ndarray, size: int, machine: Machine
) -> list[float]:
    """The median milliseconds a query that each encoder takes, over the first TIMED batches of
    ``images`` (Q, C, H, H); decoding the file is not in it. The first time does not count."""
    found = []
    batches = [rows for rows, _ in full_batches(len(images), size)][:TIMED]
    for encode in encoders:
        times = []
        for rows in [batches[0], *batches]:
            asked = torch.from_numpy(images[rows.numpy()]).to(machine.device)
            started = _now(machine)
            with machine.precision():
                encode(asked)
            times.append(1000 * (_now(machine) - started) / size)
        found.append(statistics.median(times[1:]))
    return found


@torch.inference_mode()
def ask(
    method: Method, queries: int, wanted: Sequence[int], batch: tuple[int, Machine], title: str
) -> tuple[list[Lists], float]:
    """All queries through a method, once for each number of results ``wanted``: ids and scores
    (Q, k) of each; and the median milliseconds a query of the first of these searches alone, over
    the first TIMED batches.

    ``batch`` = (its size, machine). A batch is timed when it has been asked already: first times do
    not count.
    """
    size, machine = batch
    parts: list[list[Lists]] = [[] for _ in wanted]
    times = []
    batches = full_batches(queries, size)
    for i, (rows, new) in enumerate(tqdm(batches, title, unit="batch", leave=False, disable=None)):
        encoded = method.encoder.known(rows)
        for k, part in zip(wanted, parts, strict=True):
            result = method.search(encoded, k)
            part.append((result.ids[:new].cpu().numpy(), result.scores[:new].cpu().numpy()))
        if i < TIMED:
            started = _now(machine)
            method.search(encoded, wanted[0])
            times.append(1000 * (_now(machine) - started) / size)
    lists = []
    for part in parts:
        ids, scores = zip(*part, strict=True)
        lists.append((np.concatenate(ids), np.concatenate(scores)))
    return lists, statistics.median(times)


def _now(machine: Machine) -> float:
    if machine.device.type == "cuda":
        torch.cuda.synchronize(machine.device)
    return time.perf_counter()


def describe(machine: Machine, batch_size: int) -> dict[str, str | int]:
    """What the times were measured on."""
    return {
        "device": str(machine.device),
        "autocast": str(machine.autocast),
        "threads": torch.get_num_threads(),
        "processor": processor(machine.device),
        "batch_size": batch_size,
    }


def processor(device: torch.device) -> str:
    """The name of what computes: the GPU's, or the CPU's with the instructions that make bf16 fast,
    where it has any."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    path, name = Path("/proc/cpuinfo"), platform.processor() or platform.machine()
    told = path.read_text(encoding="utf-8") if path.exists() else ""
    about = dict(re.findall(r"^(model name|flags)\s*: (.*)$", told, flags=re.MULTILINE))
    fast = [flag for flag in BF16 if flag in about.get("flags", "").split()]
    return " with ".join([about.get("model name", name), *fast[:1]])
