"""What the points of one set have found, together: means and deviations over seeds, queries side by
side."""

import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from irgen.errors import ArtifactError
from irgen.files import read_json
from irgen.params import flatten
from irgen.study.plan import Plan, Point, params_of
from irgen.study.point import results_of
from irgen.study.significance import Values

QUERIES = "queries.parquet"


@dataclass(frozen=True, kw_only=True)
class Result:
    """What one point has found: by method the ``metrics`` and the ``latency`` in milliseconds;
    ``queries`` a row a method and query; ``about`` what was run."""

    point: Point
    about: dict[str, Any]
    metrics: dict[str, dict[str, float]]
    latency: dict[str, dict[str, float]]
    seconds: dict[str, float]
    queries: pl.DataFrame


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A figure over seeds: its mean and standard deviation, which of one seed is None."""

    mean: float
    deviation: float | None


def read(root: Path, point: Point) -> Result:
    """The results of a point. Raises ArtifactError if they are missing."""
    folder = results_of(root, point)
    if not folder.is_dir():
        raise ArtifactError(f"{folder} is missing: run irgen compare {point.set}")
    timed = read_json(folder / "latency.json")
    return Result(
        point=point,
        about=read_json(folder / "about.json"),
        metrics=read_json(folder / "metrics.json"),
        latency=timed["methods"],
        seconds=timed["seconds"],
        queries=pl.read_parquet(folder / QUERIES),
    )


def there(root: Path, plan: Plan, name: str) -> dict[str, list[Result]]:
    """The results of a set by variant, in the plan's order and of its seeds, as far as they are
    there; those of other settings than the plan's, or of other images than the standard variant's
    latest, are left out and told of. Raises ArtifactError if there are none of the variant that
    others are compared with."""
    found: dict[str, list[Result]] = {}
    source = None
    for variant in (*plan.compared, *plan.ablated):
        for seed in plan.seeds_of(variant):
            point = Point(set=name, variant=variant, seed=seed)
            if not results_of(root, point).is_dir():
                continue
            result = read(root, point)
            source = source or result.about["source"]
            same = result.about["params"] == flatten(params_of(root, plan, point))
            if same and result.about["source"] == source:
                found.setdefault(variant, []).append(result)
            else:
                print(f"{point} is left out: it is of other settings or images; run it again")
    if plan.standard not in found:
        wanted = results_of(root, Point(set=name, variant=plan.standard, seed=plan.seeds[0]))
        raise ArtifactError(f"{wanted} is missing: nothing to compare; run irgen compare {name}")
    return found


def spread(values: list[float]) -> Spread:
    """Mean and sample standard deviation.

    >>> spread([1.0, 3.0])
    Spread(mean=2.0, deviation=1.4142135623730951)
    """
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return Spread(mean=statistics.mean(values), deviation=deviation)


def over_seeds(results: list[Result], method: str, key: str) -> Spread | None:
    """A method's metric over the seeds; None if it was not measured with all of them."""
    values = [result.metrics.get(method, {}).get(key) for result in results]
    known = [value for value in values if value is not None]
    return spread(known) if known and len(known) == len(values) else None


def by_query(results: list[Result], method: str, key: str) -> Values | None:
    """A method's metric for each query that has an answer (any,): the mean over the seeds that ask
    the same queries, one after the other where a seed draws its own. None if it was not measured
    with each."""
    parts: dict[str, list[Values]] = {}
    for result in results:
        own = result.queries.filter(pl.col("method") == method).sort("query")
        if not len(own) or key not in own.columns:
            return None
        values = own[key].to_numpy().astype(np.float64)
        parts.setdefault(result.about["asked"], []).append(values)
    return np.concatenate([np.mean(same, axis=0) for same in parts.values()])


def alike(first: list[Result], second: list[Result]) -> tuple[list[Result], list[Result]]:
    """Those of both that share a seed, in the same order."""
    seeds = {result.point.seed for result in first} & {result.point.seed for result in second}
    kept = [[each for each in results if each.point.seed in seeds] for results in (first, second)]
    return kept[0], kept[1]
