"""Run one trial of a comparison: run its stages and collect their results."""

import shutil
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import polars as pl

from irgen.catalog.table import NAMES, read_table, write_table
from irgen.checkpoints.fingerprint import weights_digest
from irgen.checkpoints.identifiers import load_codes
from irgen.evaluation.query_set import count_positives
from irgen.evaluation.sample import draw_sample
from irgen.files.atomic import atomic
from irgen.files.digests import digest
from irgen.files.records import read_json, write_json
from irgen.files.sealed import read_parquet, write_parquet
from irgen.files.workspace import Workspace
from irgen.models.quantizer import usage
from irgen.params import Params
from irgen.params.strict import flatten
from irgen.study.plan import RESULTS, SOURCES, Plan, Trial, load_trial_params
from irgen.study.stage_cache import (
    Folders,
    StageResult,
    digest_code,
    list_stages,
    read_seconds,
    run_cached,
)
from irgen.tracking.locations import find_project

SEMANTIC = "semantic"
MEASURED = ("queries", "database")  # roles


def results_folder(root: Path, trial: Trial) -> Path:
    """Return the folder of a trial's results."""
    return root / RESULTS / trial.set / trial.variant / str(trial.seed)


def images_folder(root: Path, set_name: str) -> Path:
    """Return the folder of a set's images, which all its trials share."""
    return find_project(root) / ".cache" / "comparison" / "sources" / set_name / "data" / "download"


def run(root: Path, plan: Plan, trial: Trial, print_line: Callable[[str], None]) -> Path:
    """Run the stages of a trial that never ran with the same inputs, write the trial's results and
    return their folder. Raises ParamsError, and errors of stages.

    A killed run continues with the stage it was in, a training with the round.
    """
    params = load_trial_params(root, plan, trial)
    cache = find_project(root) / ".cache"
    folders = Folders(root=root, cache=cache / "comparison" / "stages", encodings=cache)
    skipped = {"download"} if params.identifiers.rule == SEMANTIC else {"download", "index"}
    extra = ["baselines"] if plan.measures_baselines(trial) else []
    results = {"download": download(root, params, trial.set)}
    for stage in [name for name in list_stages(root) if name not in skipped] + extra:
        results[stage] = run_cached(folders, stage, params, results, print_line)
    return _write_results(root, params, trial, results)


def download(root: Path, params: Params, set_name: str) -> StageResult:
    """Bring a set's images up to date. The digest covers the images, not where they lie."""
    folder = images_folder(root, set_name)
    home = folder.parents[1]
    workspace = Workspace(data=folder.parent, cache=home / "cache", reports=home / "reports")
    import_module("irgen.stages.download").run(params, workspace, lambda metrics, step: None)
    manifest = read_parquet(folder / "manifest.parquet")
    images = manifest.select(pl.exclude("shard", "offset", "etag", "version")).sort("key")
    return StageResult(digest(images.write_csv())[:20], folder)


def write_source(root: Path, plan: Plan, set_name: str) -> Path:
    """Bring a set's images up to date and write ``experiments/sources/<set>.json``: the digests of
    the images and of the encoder's weights, on which its trials depend. Raises SourceError if the
    images cannot be had."""
    trial = Trial(set=set_name, variant=plan.standard, seed=plan.seeds[0])
    params = load_trial_params(root, plan, trial)
    images = download(root, params, set_name).content
    digests = {"images": images, "weights": weights_digest(params.encoder)}
    path = root / SOURCES / f"{set_name}.json"
    if not path.exists() or read_json(path) != digests:
        write_json(path, digests)
    return path


def _write_results(
    root: Path, params: Params, trial: Trial, results: dict[str, StageResult]
) -> Path:
    """Collect the results that the tables need, of all methods of a trial."""
    catalog, identifiers = results["catalog"].data, results["identifiers"].data / "database"
    measured = [results[stage] for stage in ("evaluate", "baselines") if stage in results]
    timings = [_read_latency(result) for result in measured]
    metrics = [read_json(result.data / "metrics.json") for result in measured]
    latency = share_encoding_time([timing["methods"] for timing in timings])
    folder = results_folder(root, trial)
    with atomic(folder) as temporary:
        temporary.mkdir(parents=True)
        facts = _describe(root, params, trial, results) | {"machine": timings[0]["machine"]}
        write_json(temporary / "about.json", facts)
        write_json(temporary / "metrics.json", {k: v for part in metrics for k, v in part.items()})
        times = {"methods": latency, "seconds": read_seconds(results)}
        write_json(temporary / "latency.json", times)
        queries = [read_parquet(result.data / "queries.parquet") for result in measured]
        write_parquet(temporary / "queries.parquet", pl.concat(queries))
        curves = [curve for result in measured for curve in read_curves(result.data)]
        write_parquet(temporary / "curves.parquet", pl.concat(curves))
        for name, table in _read_measured(params, catalog).items():
            write_table(temporary / f"{name}.table.parquet", table)
        shutil.copyfile(identifiers / "codes.parquet", temporary / "codes.parquet")
        for result in measured:
            shutil.copytree(result.data / "runs", temporary / "runs", dirs_exist_ok=True)
    return folder


def _describe(
    root: Path, params: Params, trial: Trial, results: dict[str, StageResult]
) -> dict[str, Any]:
    """Return the facts of a trial: settings, code, images, protocol, and spread of the codes."""
    catalog = results["catalog"].data
    tables = {name: read_table(catalog / f"{name}.parquet") for name in NAMES}
    tables |= _read_measured(params, catalog)
    codes = results["identifiers"].data / "database"
    return {
        "set": trial.set,
        "variant": trial.variant,
        "seed": trial.seed,
        "params": flatten(params),
        "source": results["download"].content,
        "code": digest_code(root, *list_stages(root), "baselines"),
        "protocol": read_json(catalog / "protocol.json"),
        "images": {name: len(table) for name, table in tables.items()},
        "relevant": count_relevant(tables["queries"], tables["database"]),
        "taught": tables["train"]["label"].drop_nulls().unique().sort().to_list(),
        "asked": digest(tables["queries"]["sha256"].to_list()),
        "identifiers": measure_spread(codes, params.tokenizer.codebook),
    }


def _read_measured(params: Params, catalog: Path) -> dict[str, pl.DataFrame]:
    """Return the tables of the queries that were measured and of the database."""
    queries, database = (read_table(catalog / f"{name}.parquet") for name in MEASURED)
    sample = draw_sample(queries, params.evaluate.queries)
    return dict(zip(MEASURED, (queries[sample], database), strict=True))


def count_relevant(queries: pl.DataFrame, database: pl.DataFrame) -> list[int]:
    """Return the smallest and the largest number of relevant images of a query that has any."""
    counts = count_positives(
        queries["label"], queries["sha256"], database["label"], database["sha256"]
    )
    some = counts[counts > 0]
    return [int(some.min()), int(some.max())] if len(some) else [0, 0]


def share_encoding_time(
    latencies: list[dict[str, dict[str, float]]],
) -> dict[str, dict[str, float]]:
    """Return the times of all methods of a trial, those of ``evaluate`` first.

    Baselines encode queries with the same architecture as brute-force search of the tuned
    embeddings. So they get its encoding time, since two measurements of it would differ by chance.

    >>> tuned, hnsw = {"search_ms": 1.0, "total_ms": 21.0}, {"search_ms": 0.5, "total_ms": 30.0}
    >>> share_encoding_time([{"brute_force_tuned": tuned}, {"hnsw": hnsw}])["hnsw"]
    {'search_ms': 0.5, 'total_ms': 20.5}
    """
    first, *rest = latencies
    encode_ms = first["brute_force_tuned"]["total_ms"] - first["brute_force_tuned"]["search_ms"]
    baselines = {
        name: {**times, "total_ms": times["search_ms"] + encode_ms}
        for latency in rest
        for name, times in latency.items()
    }
    return first | baselines


def _read_latency(result: StageResult) -> dict[str, Any]:
    assert result.reports is not None, "a stage that measures methods times them"
    (path,) = result.reports.glob("*latency.json")
    return read_json(path)


def measure_spread(folder: Path, codebook: int) -> dict[str, float]:
    """Measure how a database's codes are spread: ``quantizer.usage``, the number of distinct codes
    and images a code."""
    codes = load_codes(folder).codes
    if not len(codes):
        return {}
    distinct = len(codes.unique(dim=0))
    return usage(codes, codebook) | {
        "distinct_codes": float(distinct),
        "images_a_code": len(codes) / distinct,
    }


def read_curves(folder: Path) -> list[pl.DataFrame]:
    """Return a stage's curves with the same columns: method, curve (precision or recall), x, y."""
    columns = {"precision": "k", "recall": "recall"}
    return [
        pl.read_csv(folder / f"{curve}.csv").select(
            "method",
            pl.lit(curve).alias("curve"),
            pl.col(x).cast(pl.Float64).alias("x"),
            pl.col("precision").alias("y"),
        )
        for curve, x in columns.items()
    ]
