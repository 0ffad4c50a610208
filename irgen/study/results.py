"""Load the results of a set's trials, and summarize them over seeds and queries."""

import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from irgen.errors import ArtifactError
from irgen.files.records import read_json
from irgen.files.sealed import read_parquet
from irgen.params.strict import flatten
from irgen.study.plan import Plan, Trial, load_trial_params
from irgen.study.significance import Values
from irgen.study.trial import results_folder


@dataclass(frozen=True, kw_only=True)
class Result:
    """Results of one trial. ``metrics`` and ``latency`` (milliseconds) are by method,
    ``seconds`` by stage. ``queries`` has a row for each method and query, with the ``sha256`` of
    its image. ``facts``: settings, data and machine."""

    trial: Trial
    facts: dict[str, Any]
    metrics: dict[str, dict[str, float]]
    latency: dict[str, dict[str, float]]
    seconds: dict[str, float]
    queries: pl.DataFrame


@dataclass(frozen=True)
class MethodResults:
    """Results of one ``method``: a trial for each seed."""

    method: str
    results: list[Result]


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Mean and standard deviation of a figure over seeds; for a single seed no deviation."""

    mean: float
    deviation: float | None


def load_result(root: Path, trial: Trial) -> Result:
    """Return the results of a trial. Raises ArtifactError if they are missing."""
    folder = results_folder(root, trial)
    if not folder.is_dir():
        raise ArtifactError(f"{folder} is missing: run irgen compare {trial.set}")
    latency = read_json(folder / "latency.json")
    images = read_parquet(folder / "queries.table.parquet").select("sha256")
    return Result(
        trial=trial,
        facts=read_json(folder / "about.json"),
        metrics=read_json(folder / "metrics.json"),
        latency=latency["methods"],
        seconds=latency["seconds"],
        queries=read_parquet(folder / "queries.parquet").join(
            images.with_row_index("query").cast({"query": pl.Int64}), on="query", how="left"
        ),
    )


def load_results(root: Path, plan: Plan, set_name: str) -> dict[str, list[Result]]:
    """Return the results of a set by variant, in the order of the plan and its seeds.

    Trials that have not run are skipped. Others are skipped with a message: those whose settings
    are not the plan's, and those whose images, code, precision or processor are not the first
    trial's. Raises ArtifactError if the standard variant has no results.
    """
    results: dict[str, list[Result]] = {}
    first: Result | None = None
    for variant in (*plan.compared, *plan.ablated):
        for seed in plan.seeds_of(variant):
            trial = Trial(set=set_name, variant=variant, seed=seed)
            if not results_folder(root, trial).is_dir():
                continue
            result = load_result(root, trial)
            params = flatten(load_trial_params(root, plan, trial))
            changed = [] if result.facts["params"] == params else ["settings"]
            first = first or (None if changed else result)
            changed += find_differences(first, result) if first else []
            if changed:
                print(f"{trial} is left out: its {', '.join(changed)} differ; run it again")
            else:
                results.setdefault(variant, []).append(result)
    if plan.standard not in results:
        trial = Trial(set=set_name, variant=plan.standard, seed=plan.seeds[0])
        raise ArtifactError(
            f"{results_folder(root, trial)} is missing: nothing to compare; run irgen compare "
            f"{set_name}"
        )
    return results


def find_differences(first: Result, second: Result) -> list[str]:
    """Return the differences that forbid a comparison: images, code, precision or processor."""
    values = {
        name: [result.facts.get(key) for result in (first, second)]
        for name, key in (("images", "source"), ("code", "code"))
    }
    for name, key in (("precision", "autocast"), ("processor", "processor")):
        values[name] = [result.facts["machine"].get(key) for result in (first, second)]
    return [name for name, (left, right) in values.items() if left != right]


def spread(values: list[float]) -> Spread:
    """Return the mean and the sample standard deviation.

    >>> spread([1.0, 3.0])
    Spread(mean=2.0, deviation=1.4142135623730951)
    """
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return Spread(mean=statistics.mean(values), deviation=deviation)


def over_seeds(results: list[Result], method: str, key: str) -> Spread | None:
    """Return a method's metric over the seeds, or None unless every seed measured it."""
    values = [result.metrics.get(method, {}).get(key) for result in results]
    measured = [value for value in values if value is not None]
    return spread(measured) if measured and len(measured) == len(values) else None


def values_by_query(result: Result, method: str, key: str) -> pl.DataFrame | None:
    """Return a method's metric for each query image that has relevant images, ``sha256`` and
    ``value``; None if it was not measured."""
    rows = result.queries.filter(pl.col("method") == method)
    if not len(rows) or key not in rows.columns:
        return None
    return rows.group_by("sha256").agg(value=pl.col(key).cast(pl.Float64).mean())


def subtract(first: MethodResults, second: MethodResults, key: str) -> Values | None:
    """Return how much higher the first method's metric is, query by query: (S, Q), a row for each
    seed of both, a column for each query image, NaN where a seed does not ask for the image. None
    unless every one of these seeds measured both, with the same queries."""
    parts = []
    for left, right in zip(*keep_shared_seeds(first.results, second.results), strict=True):
        values = values_by_query(left, first.method, key)
        others = values_by_query(right, second.method, key)
        if values is None or others is None or left.facts["asked"] != right.facts["asked"]:
            return None
        gain = pl.col("value") - pl.col("value_right")
        parts.append(values.join(others, on="sha256").select("sha256", gain.alias("gain")))
    if not parts:
        return None
    return np.stack([part["gain"].to_numpy() for part in pl.align_frames(*parts, on="sha256")])


def keep_shared_seeds(
    first: list[Result], second: list[Result]
) -> tuple[list[Result], list[Result]]:
    """Return the results of both lists whose seed the other list has too."""
    seeds = {result.trial.seed for result in first} & {result.trial.seed for result in second}
    left, right = (
        [result for result in results if result.trial.seed in seeds] for results in (first, second)
    )
    return left, right
