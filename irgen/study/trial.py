"""One point of a comparison: its stages, and what is kept of what came out."""

import shutil
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import polars as pl

from irgen.catalog.table import read_table
from irgen.checkpoints.identifiers import load_identified
from irgen.checkpoints.weights import weights_digest
from irgen.evaluation import runs
from irgen.files import atomic, digest, read_json, write_json
from irgen.models.quantizer import usage
from irgen.params import Params
from irgen.params.strict import flatten
from irgen.study.plan import RESULTS, SOURCES, Plan, Trial, params_of
from irgen.study.stage_cache import Done, Place, brought, code_of, seconds
from irgen.tracking.provenance import project
from irgen.workspace import Workspace

STAGES = ("catalog", "features", "pairs", "tokenizer", "identifiers", "trie", "retriever")
SEMANTIC = "semantic"
Tell = Callable[[str], None]


def results_of(root: Path, point: Trial) -> Path:
    """The folder of what a point has found."""
    return root / RESULTS / point.set / point.variant / str(point.seed)


def run(root: Path, plan: Plan, point: Trial, tell: Tell) -> Path:
    """Runs the stages of a point that nobody ran with the same inputs, and writes its results;
    returns their folder. Raises ParamsError, and what stages raise.

    A run that was killed goes on where it was: with the stage it was in, of a training with the
    epoch.
    """
    params = params_of(root, plan, point)
    cache = project(root) / ".cache"
    place = Place(root=root, cache=cache / "comparison" / "stages", encodings=cache)
    done = {"download": downloaded(root, params, point)}
    stages = [*STAGES, *(["index"] if params.identifiers.rule == SEMANTIC else []), "evaluate"]
    if point.variant == plan.standard:
        stages += ["baselines"]
    for stage in stages:
        done[stage] = brought(place, stage, params, done, tell)
    return _gather(place, params, point, done, results_of(root, point))


def images_of(root: Path, point: Trial) -> Path:
    """The folder of a set's images, one for all its points."""
    return project(root) / ".cache" / "comparison" / "sources" / point.set / "data" / "download"


def downloaded(root: Path, params: Params, point: Trial) -> Done:
    """Brings a set's images up to date, one copy for all its points; its content is what they are,
    wherever they lie."""
    folder = images_of(root, point)
    home = folder.parents[1]
    workspace = Workspace(data=folder.parent, cache=home / "cache", reports=home / "reports")
    import_module("irgen.stages.download").run(params, workspace, lambda metrics, step: None)
    manifest = pl.read_parquet(folder / "manifest.parquet")
    about = manifest.select(pl.exclude("shard", "offset", "etag", "version")).sort("key")
    return Done(digest(about.write_csv())[:20], folder)


def look(root: Path, plan: Plan, name: str) -> Path:
    """Brings a set's images up to date and writes down what they and the encoder's weights are,
    which its points depend on: ``experiments/sources/<set>.json``. Raises SourceError if they
    cannot be had."""
    point = Trial(set=name, variant=plan.standard, seed=plan.seeds[0])
    params = params_of(root, plan, point)
    images = downloaded(root, params, point).content
    about = {"images": images, "weights": weights_digest(params.encoder)}
    path = root / SOURCES / f"{name}.json"
    if not path.exists() or read_json(path) != about:
        write_json(path, about)
    return path


def _gather(
    place: Place, params: Params, point: Trial, done: dict[str, Done], folder: Path
) -> Path:
    """Writes what comparing needs of a point: one file a kind for all its methods."""
    catalog, identifiers = done["catalog"].data, done["identifiers"].data / "database"
    judged = [done[stage] for stage in ("evaluate", "baselines") if stage in done]
    timed = [read_json(path) for each in judged for path in _times(each)]
    asked = pl.read_parquet(catalog / "queries.parquet")["sha256"].to_list()
    about = {
        "set": point.set,
        "variant": point.variant,
        "seed": point.seed,
        "params": flatten(params),
        "source": done["download"].content,
        "code": code_of(place.root, (*STAGES, "index", "evaluate", "baselines")),
        "protocol": read_json(catalog / "protocol.json"),
        "images": {
            path.stem: pl.scan_parquet(path).select(pl.len()).collect().item()
            for path in sorted(catalog.glob("*.parquet"))
        },
        "relevant": relevant(catalog),
        "machine": timed[0]["machine"] if timed else {},
        "asked": digest(asked),
        "identifiers": spread(identifiers, params.tokenizer.codebook),
    }
    latency = alike([found["methods"] for found in timed])
    with atomic(folder) as temporary:
        temporary.mkdir(parents=True)
        write_json(temporary / "about.json", about)
        write_json(temporary / "metrics.json", _together(judged))
        times = {"methods": latency, "seconds": seconds(done)}
        write_json(temporary / "latency.json", times)
        queries = [pl.read_parquet(each.data / "queries.parquet") for each in judged]
        pl.concat(queries).write_parquet(temporary / "queries.parquet")
        curves = [curve for each in judged for curve in curves_of(each.data)]
        pl.concat(curves).write_parquet(temporary / "curves.parquet")
        for name in ("queries", "database"):
            shutil.copyfile(catalog / f"{name}.parquet", temporary / f"{name}.table.parquet")
        shutil.copyfile(identifiers / "codes.parquet", temporary / "codes.parquet")
        for each in judged:
            shutil.copytree(each.data / "runs", temporary / "runs", dirs_exist_ok=True)
    return folder


def relevant(catalog: Path) -> list[int]:
    """The fewest and the most images of the database that a query with any is to find."""
    queries, database = (
        read_table(catalog / f"{name}.parquet") for name in ("queries", "database")
    )
    asked, there = ((table["label"], table["sha256"]) for table in (queries, database))
    counts = runs.positives(*asked, *there)
    some = counts[counts > 0]
    return [int(some.min()), int(some.max())] if len(some) else [0, 0]


def alike(found: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """The times of all methods of a point, those of ``evaluate`` first. Baselines encode a query by
    the same architecture as the scan of the tuned embeddings does, so what that was measured to
    take is theirs as well: times of two stages differ by what else went on.

    >>> scan, hnsw = {"search_ms": 1.0, "total_ms": 21.0}, {"search_ms": 0.5, "total_ms": 30.0}
    >>> alike([{"scan_tuned": scan}, {"hnsw": hnsw}])["hnsw"]
    {'search_ms': 0.5, 'total_ms': 20.5}
    """
    first, *others = found
    encode_ms = first["scan_tuned"]["total_ms"] - first["scan_tuned"]["search_ms"]
    baselines = {
        name: {**times, "total_ms": times["search_ms"] + encode_ms}
        for each in others
        for name, times in each.items()
    }
    return first | baselines


def _times(done: Done) -> list[Path]:
    assert done.reports is not None, "what is judged is timed"
    return sorted(done.reports.glob("*latency.json"))


def _together(judged: list[Done]) -> dict[str, dict[str, float]]:
    """The metrics of all methods."""
    return {k: v for each in judged for k, v in read_json(each.data / "metrics.json").items()}


def spread(folder: Path, codebook: int) -> dict[str, float]:
    """How a database's codes are spread: see ``quantizer.usage``; and how many distinct ones there
    are, for how many images each."""
    codes = load_identified(folder).codes
    if not len(codes):
        return {}
    distinct = len(codes.unique(dim=0))
    return usage(codes, codebook) | {
        "distinct_codes": float(distinct),
        "images_a_code": len(codes) / distinct,
    }


def curves_of(folder: Path) -> list[pl.DataFrame]:
    """What was written of a stage's curves, alike: method, curve (precision or recall), x, y."""
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
