"""What the points of one set have found, together: means and deviations over seeds, queries side by
side."""

import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from irgen.errors import ArtifactError
from irgen.files import read_json
from irgen.params.strict import flatten
from irgen.study.plan import Plan, Trial, params_of
from irgen.study.significance import Values
from irgen.study.trial import results_folder

QUERIES = "queries.parquet"


@dataclass(frozen=True, kw_only=True)
class Result:
    """What one point has found: by method the ``metrics`` and the ``latency`` in milliseconds;
    ``queries`` a row a method and query, with the ``sha256`` of its image; ``about`` what was
    run."""

    point: Trial
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


def read(root: Path, point: Trial) -> Result:
    """The results of a point. Raises ArtifactError if they are missing."""
    folder = results_folder(root, point)
    if not folder.is_dir():
        raise ArtifactError(f"{folder} is missing: run irgen compare {point.set}")
    timed = read_json(folder / "latency.json")
    images = pl.read_parquet(folder / "queries.table.parquet", columns=["sha256"])
    return Result(
        point=point,
        about=read_json(folder / "about.json"),
        metrics=read_json(folder / "metrics.json"),
        latency=timed["methods"],
        seconds=timed["seconds"],
        queries=pl.read_parquet(folder / QUERIES).join(
            images.with_row_index("query").cast({"query": pl.Int64}), on="query", how="left"
        ),
    )


def there(root: Path, plan: Plan, name: str) -> dict[str, list[Result]]:
    """The results of a set by variant, in the plan's order and of its seeds, as far as they are
    there. Those of other settings than the plan's are left out and told of; so are those of other
    images, other code, another precision or processor than the standard variant's. Raises
    ArtifactError if there are none of the variant that others are compared with."""
    found: dict[str, list[Result]] = {}
    first: Result | None = None
    for variant in (*plan.compared, *plan.ablated):
        for seed in plan.seeds_of(variant):
            point = Trial(set=name, variant=variant, seed=seed)
            if not results_folder(root, point).is_dir():
                continue
            result = read(root, point)
            own = result.about["params"] == flatten(params_of(root, plan, point))
            others = ["settings"] if not own else []
            first = first or (result if own else None)
            others += [] if first is None else differences(first, result)
            if others:
                print(f"{point} is left out: it is of other {', '.join(others)}; run it again")
            else:
                found.setdefault(variant, []).append(result)
    if plan.standard not in found:
        wanted = results_folder(root, Trial(set=name, variant=plan.standard, seed=plan.seeds[0]))
        raise ArtifactError(f"{wanted} is missing: nothing to compare; run irgen compare {name}")
    return found


def differences(first: Result, second: Result) -> list[str]:
    """What keeps two results from being compared: images, code, precision or processor, if they
    are of others."""
    pairs = {
        "images": [each.about["source"] for each in (first, second)],
        "code": [each.about.get("code") for each in (first, second)],
        "precision": [each.about["machine"].get("autocast") for each in (first, second)],
        "processor": [each.about["machine"].get("processor") for each in (first, second)],
    }
    return [name for name, (one, other) in pairs.items() if one != other]


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


def by_query(results: list[Result], method: str, key: str) -> pl.DataFrame | None:
    """A method's metric for each image that is asked about and has an answer: ``sha256``, in order,
    and ``value``, the mean over the seeds that ask about it. None if it was not measured with each
    of them, or there are none."""
    parts = []
    for result in results:
        own = result.queries.filter(pl.col("method") == method)
        if not len(own) or key not in own.columns:
            return None
        parts.append(own.select("sha256", value=pl.col(key).cast(pl.Float64)))
    if not parts:
        return None
    return pl.concat(parts).group_by("sha256").agg(pl.col("value").mean()).sort("sha256")


def paired(first: pl.DataFrame, second: pl.DataFrame) -> tuple[Values, Values] | None:
    """The values of two methods ``by_query``, query by query; None if these are others."""
    if not first["sha256"].equals(second["sha256"]):
        return None
    return first["value"].to_numpy(), second["value"].to_numpy()


def alike(first: list[Result], second: list[Result]) -> tuple[list[Result], list[Result]]:
    """Those of both that share a seed, in the same order."""
    seeds = {result.point.seed for result in first} & {result.point.seed for result in second}
    kept = [[each for each in results if each.point.seed in seeds] for results in (first, second)]
    return kept[0], kept[1]
