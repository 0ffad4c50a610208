"""Describe a stage for its run log: parameters, files, tables, quality."""

from pathlib import Path
from typing import Any

import polars as pl

from irgen.catalog.table import NAMES
from irgen.evaluation.summary import find_served, summarize
from irgen.files.digests import file_digest
from irgen.files.records import read_json
from irgen.files.workspace import Workspace
from irgen.params import Params
from irgen.params.strict import flatten
from irgen.tracking import locations, provenance

REPORTS = "reports/"  # prefix of the names of pages for people
UNREAD = ("baselines.", "release.", "tracking.")  # settings that no build depends on
WITH_QUALITY = ("evaluate", "report")  # stages whose end carries the quality of the build


def describe_begin(stage: str, params: Params, root: Path) -> dict[str, Any]:
    """Return the fields of a run log's first record: build, experiment, tags and parameters."""
    all_params, entry = flatten(params), provenance.read_stage(root, stage)
    stage_params = {
        key: value
        for key, value in all_params.items()
        if any(key == name or key.startswith(f"{name}.") for name in entry.get("params", [stage]))
    }
    return {
        "stage": stage,
        "runs_always": bool(entry.get("always_changed")),
        "build": provenance.build_key(),
        "owner": provenance.describe_owner(),
        "store": locations.store_key(root),
        "experiment": locations.experiment_name(params),
        "max_bytes": params.tracking.max_artifact_megabytes * 1_000_000,
        "tags": provenance.read_tags(root, stage),
        "params": stage_params,
        "all_params": {
            key: value for key, value in all_params.items() if not key.startswith(UNREAD)
        },
    }


def describe_end(
    stage: str, params: Params, workspace: Workspace, *, status: str, error: str, files: list[Any]
) -> dict[str, Any]:
    """Return the fields of a stage's last record. ``status``: MLflow's; ``files``: of
    ``describe_files``."""
    root = workspace.data.parent
    return {
        "status": status,
        "error": error,
        "files": files,
        "tables": provenance.describe_tables(root, stage) if status == "FINISHED" else [],
        "summary": read_key_metrics(workspace) if stage in WITH_QUALITY else {},
        "build_tags": read_build_tags(params, workspace),
        "monitor": read_monitor(workspace) if stage == "drift" else None,
    }


def read_build_tags(params: Params, workspace: Workspace) -> dict[str, str]:
    """Return the tags of a build's run: what it is built from, and what provenance adds."""
    tags = {"irgen.source": params.download.source}
    tags |= {f"irgen.{name}": str(count) for name, count in count_images(workspace).items()}
    return tags | provenance.read_build_tags(workspace.data.parent)


def count_images(workspace: Workspace) -> dict[str, int]:
    """Count ``images`` and ``labels`` of the catalogue, images that are ``searchable``, and
    ``queries``, which measure. Empty before the catalogue."""
    paths = {name: workspace.stage("catalog") / f"{name}.parquet" for name in NAMES}
    tables = {name: pl.scan_parquet(path) for name, path in paths.items() if path.is_file()}
    if "database" not in tables or "queries" not in tables:
        return {}
    every = pl.concat([table.select("id", "label") for table in tables.values()])
    return {
        "images": every.select(pl.col("id").n_unique()).collect().item(),
        "labels": every.select(pl.col("label").n_unique()).collect().item(),
        "searchable": tables["database"].select(pl.len()).collect().item(),
        "queries": tables["queries"].select(pl.len()).collect().item(),
    }


def describe_new_files(workspace: Workspace, stage: str, since: int) -> list[dict[str, Any]]:
    """Describe the stage's outputs and reports that were written since ``since`` (ns)."""
    files = describe_files(workspace.stage(stage), since=since)
    if stage in WITH_QUALITY:
        files += describe_reports(workspace, since)
    return files


def describe_reports(workspace: Workspace, since: int = 0) -> list[dict[str, Any]]:
    """Describe the pages for people that were written since ``since`` (ns)."""
    return describe_files(workspace.reports, prefix=REPORTS, since=since)


def describe_files(
    folder: Path, *, prefix: str = "", since: int = 0, pattern: str = "*"
) -> list[dict[str, Any]]:
    """Return name, path, size and SHA-256 of the files below ``folder`` whose name matches
    ``pattern`` and that were written since ``since`` (ns)."""
    return [
        {
            "name": prefix + path.relative_to(folder).as_posix(),
            "path": str(path.resolve()),
            "bytes": path.stat().st_size,
            "sha256": file_digest(path),
        }
        for path in sorted(folder.rglob(pattern))
        if not path.name.startswith(".") and path.is_file() and path.stat().st_mtime_ns >= since
    ]


def read_quality(workspace: Workspace) -> dict[str, float]:
    """Return ``data/evaluate/metrics.json`` as one flat mapping with keys such as
    ``generative/precision/10``; empty before the first evaluation."""
    path = workspace.stage("evaluate") / "metrics.json"
    return flatten_numbers(read_json(path)) if path.exists() else {}


def read_key_metrics(workspace: Workspace) -> dict[str, float]:
    """Return the metrics that matter most, such as ``index/precision_at_10``."""
    path = workspace.stage("evaluate") / "metrics.json"
    metrics = read_json(path) if path.exists() else {}
    return {f"{find_served(metrics)}/{name}": value for name, value in summarize(metrics).items()}


def read_monitor(workspace: Workspace) -> dict[str, Any] | None:
    """Return the ``values`` of drift and quality to monitor, and their data revision (``step``).
    None before the stage drift has run."""
    path = workspace.stage("drift") / "metrics.json"
    if not path.exists():
        return None
    values = {f"drift/{name}": value for name, value in flatten_numbers(read_json(path)).items()}
    values |= read_key_metrics(workspace)
    return {"step": provenance.data_revision(workspace.data.parent), "values": values}


def flatten_numbers(tree: dict[str, Any], prefix: str = "") -> dict[str, float]:
    """Return the numbers in nested mappings by their paths.

    >>> flatten_numbers({"index": {"precision/10": 1}, "name": "x"})
    {'index/precision/10': 1.0}
    """
    numbers: dict[str, float] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            numbers |= flatten_numbers(value, f"{prefix}{name}/")
        elif isinstance(value, (int, float)):
            numbers[f"{prefix}{name}"] = float(value)
    return numbers
