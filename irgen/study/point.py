"""One point of a comparison: its stages, and what is kept of what came out."""

import shutil
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import polars as pl

from irgen.artifacts.identifiers import load_identified
from irgen.files import atomic, digest, file_digest, read_json, write_json
from irgen.models.quantizer import usage
from irgen.params import Params, flatten
from irgen.provenance import project
from irgen.study.plan import RESULTS, Plan, Point, params_of
from irgen.study.reuse import Place, brought, seconds

STAGES = ("catalog", "features", "pairs", "tokenizer", "identifiers", "trie", "retriever")
SEMANTIC = "semantic"
Tell = Callable[[str], None]


def results_of(root: Path, point: Point) -> Path:
    """The folder of what a point has found."""
    return root / RESULTS / point.set / point.variant / str(point.seed)


def run(root: Path, plan: Plan, point: Point, tell: Tell) -> Path:
    """Runs the stages of a point that nobody ran with the same inputs, and writes its results;
    returns their folder. Raises ParamsError, and what stages raise.

    A run that was killed goes on where it was: with the stage it was in, of a training with the
    epoch.
    """
    params = params_of(root, plan, point)
    place = _place(root, point)
    keys = _downloaded(place, params, point)
    stages = [*STAGES, *(["index"] if params.identifiers.rule == SEMANTIC else []), "evaluate"]
    if point.variant == plan.standard:
        stages += ["baselines"]
    for stage in stages:
        keys[stage] = brought(place, stage, params, keys, tell)
    return _gather(place, params, point, keys, results_of(root, point))


def images_of(root: Path, point: Point) -> Path:
    """The folder of a set's images, one for all its points."""
    return project(root) / ".cache" / "comparison" / "sources" / point.set / "data" / "download"


def _place(root: Path, point: Point) -> Place:
    cache = project(root) / ".cache"
    shared = cache / "comparison"
    folder = shared / "points" / point.set / f"{point.variant}-{point.seed}"
    return Place(root=root, cache=shared / "stages", folder=folder, encodings=cache)


def _downloaded(place: Place, params: Params, point: Point) -> dict[str, str]:
    """Brings the set's images up to date, one copy for all its points, and gives their key."""
    home = place.cache.parent / "sources" / point.set
    kept = place.workspace("download")
    elsewhere = Place(root=place.root, cache=home, folder=home, encodings=home / "cache")
    workspace = elsewhere.workspace("download")
    import_module("irgen.stages.download").run(params, workspace, lambda metrics, step: None)
    link = kept.stage("download")
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(workspace.stage("download").resolve(), target_is_directory=True)
    manifest = pl.read_parquet(link / "manifest.parquet").select("key", "sha256")
    content = manifest.sort("key").write_csv().encode()
    with atomic(home / "content.csv") as temporary:
        temporary.write_bytes(content)
    return {"download": file_digest(home / "content.csv")[:20]}


def _gather(place: Place, params: Params, point: Point, keys: dict[str, str], folder: Path) -> Path:
    """Writes what comparing needs of a point: one file a kind for all its methods."""
    data = place.folder / "data"
    judged = [stage for stage in ("evaluate", "baselines") if stage in keys]
    metrics = {
        k: v for stage in judged for k, v in read_json(data / stage / "metrics.json").items()
    }
    timed = [
        read_json(path)
        for stage in judged
        for path in sorted((place.folder / "reports" / stage).glob("*latency.json"))
    ]
    about = {
        "set": point.set,
        "variant": point.variant,
        "seed": point.seed,
        "params": flatten(params),
        "protocol": read_json(data / "catalog" / "protocol.json"),
        "images": {
            path.stem: pl.scan_parquet(path).select(pl.len()).collect().item()
            for path in sorted((data / "catalog").glob("*.parquet"))
        },
        "machine": timed[0]["machine"] if timed else {},
        "asked": digest(pl.read_parquet(data / "catalog" / "queries.parquet")["sha256"].to_list()),
        "identifiers": spread(data / "identifiers" / "database", params.tokenizer.codebook),
    }
    latency = {method: each for found in timed for method, each in found["methods"].items()}
    with atomic(folder) as temporary:
        temporary.mkdir(parents=True)
        write_json(temporary / "about.json", about)
        write_json(temporary / "metrics.json", metrics)
        write_json(
            temporary / "latency.json", {"methods": latency, "seconds": seconds(place, keys)}
        )
        each = [pl.read_parquet(data / stage / "queries.parquet") for stage in judged]
        pl.concat(each).write_parquet(temporary / "queries.parquet")
        curves = [curve for stage in judged for curve in curves_of(data / stage)]
        pl.concat(curves).write_parquet(temporary / "curves.parquet")
        for name in ("queries", "database"):
            shutil.copyfile(
                data / "catalog" / f"{name}.parquet", temporary / f"{name}.table.parquet"
            )
        codes = data / "identifiers" / "database" / "codes.parquet"
        shutil.copyfile(codes, temporary / "codes.parquet")
        for stage in judged:
            shutil.copytree(data / stage / "runs", temporary / "runs", dirs_exist_ok=True)
    return folder


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
