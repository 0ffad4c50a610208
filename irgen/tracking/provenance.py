"""Describe the origin of a run: its build, Git commit, DVC stage hash and catalogue tables."""

import hashlib
import json
import os
import platform
from functools import lru_cache
from pathlib import Path
from typing import Any

import polars as pl
import psutil
import yaml

from irgen.files.digests import digest
from irgen.files.workspace import Workspace, git

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in C: a stage reads a thousand lines
SHELLS = {"sh", "bash", "dash", "zsh", "fish", "make"}
COMMIT = "mlflow.source.git.commit"
CONDUCTED = "IRGEN_CONDUCTED"  # process id of the flow that runs the stage and syncs at its end


def build_key(process: psutil.Process | None = None) -> str:
    """Return the key of the build this process belongs to: ``IRGEN_BUILD`` if set, else one of the
    nearest DVC command above it, else one of the process itself. Stages of one ``dvc repro`` share
    it."""
    if build := os.environ.get("IRGEN_BUILD"):
        return build
    process = process or psutil.Process()
    owner = _find_dvc(process) or process
    return f"{platform.node()}-{owner.pid}-{int(owner.create_time())}"


def describe_owner() -> list[float] | None:
    """Return id and start time of the process that runs the build: a flow's, else the nearest DVC
    command above this one. None for a stage alone."""
    try:
        conductor = os.environ.get(CONDUCTED)
        owner = psutil.Process(int(conductor)) if conductor else _find_dvc(psutil.Process())
        return [owner.pid, owner.create_time()] if owner else None
    except (psutil.Error, ValueError):
        return None


def is_alive(owner: list[float] | None) -> bool:
    """Tell whether a process that ``describe_owner`` described is alive."""
    if owner is None:
        return False
    try:
        process = psutil.Process(int(owner[0]))
        return process.create_time() == owner[1] and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def was_killed(root: Path, owner: list[float] | None) -> bool:
    """Tell whether the DVC command that ``describe_owner`` described was killed: then its process
    stays in DVC's list of the files in use."""
    try:
        in_use = json.loads((root / ".dvc" / "tmp" / "rwlock").read_text())
        entries = [entry for uses in in_use.values() for entry in uses.values()]
        users = [user for entry in entries for user in (entry if type(entry) is list else [entry])]
        return owner is not None and int(owner[0]) in {user["pid"] for user in users}
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return False


def _find_dvc(process: psutil.Process) -> psutil.Process | None:
    return next((parent for parent in process.parents() if _is_dvc(parent)), None)


def _is_dvc(process: psutil.Process) -> bool:
    try:
        words = process.cmdline()[:4]
    except psutil.Error:
        return False
    return any(Path(word).name == "dvc" for word in words) and Path(words[0]).name not in SHELLS


def read_tags(root: Path, stage: str) -> dict[str, str]:
    """Return the tags of a stage's run: commit, stage hash, DVC experiment, machine."""
    tags = {"irgen.stage": stage, "irgen.host": platform.node()}
    if commit := read_commit(root):
        changes = git(root, "status", "--porcelain", "--untracked-files=no", ".", ":!dvc.lock")
        tags |= {COMMIT: commit, "git.dirty": "true" if changes else "false"}
    if hashed := hash_stage(root, stage):
        tags["dvc.stage_hash"] = hashed
    for tag, variable in [
        ("dvc.experiment", "DVC_EXP_NAME"),
        ("dvc.baseline", "DVC_EXP_BASELINE_REV"),
    ]:
        if os.environ.get(variable):
            tags[tag] = os.environ[variable]
    return tags


def read_commit(root: Path) -> str | None:
    """Return the hash of the Git commit that is checked out; None outside a repository."""
    return git(root, "rev-parse", "HEAD")


def read_stage(root: Path, stage: str) -> dict[str, Any]:
    """Return the stage's entry in ``dvc.yaml``; empty if there is none."""
    return _read_stages(root / "dvc.yaml").get(stage) or {}


def hash_stage(root: Path, stage: str) -> str | None:
    """Return the digest of a stage's command, dependencies and parameters, before it runs.

    Afterwards ``hash_lock_entry`` returns the same. None if ``dvc.yaml`` has no such stage.
    """
    entry = read_stage(root, stage)
    if not entry:
        return None
    outputs = {
        out["path"]: out.get("md5")
        for locked in _read_stages(root / "dvc.lock").values()
        for out in locked.get("outs", [])
    }
    dependencies = {
        path: outputs[path] if path in outputs else _hash_file(root / path)
        for path in entry.get("deps", [])
    }
    values = _read_yaml(root / "params.yaml")
    parameters = {key: _look_up(values, key) for key in entry.get("params", [])}
    return digest(entry["cmd"], dependencies, parameters)


def hash_lock_entry(root: Path, stage: str) -> str | None:
    """Return the same digest from the stage's entry in ``dvc.lock``; None if there is none."""
    entry = _read_stages(root / "dvc.lock").get(stage)
    if entry is None:
        return None
    dependencies = {dep["path"]: dep.get("md5") for dep in entry.get("deps", [])}
    return digest(entry["cmd"], dependencies, entry.get("params", {}).get("params.yaml", {}))


def _look_up(tree: Any, key: str) -> Any:
    for part in key.split("."):
        tree = tree.get(part) if isinstance(tree, dict) else None
    return tree


def _hash_file(path: Path) -> str | None:
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def _read_stages(path: Path) -> dict[str, Any]:
    return _read_yaml(path).get("stages", {})


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        return _parse_yaml(path.read_text())
    except (OSError, yaml.YAMLError):
        return {}


@lru_cache(maxsize=3)  # dvc.yaml, dvc.lock and params.yaml are asked for stage by stage
def _parse_yaml(text: str) -> dict[str, Any]:
    return yaml.load(text, Loader=LOADER) or {}


def describe_tables(root: Path, stage: str) -> list[dict[str, Any]]:
    """Return name, path, rows, columns and digest of the catalogue tables that the stage reads or
    writes. The digest covers id, label, role and content hash of the images, in order."""
    entry = read_stage(root, stage)
    declared = [*entry.get("deps", []), *entry.get("outs", [])]
    paths = [path if isinstance(path, str) else next(iter(path)) for path in declared]
    return [
        _describe_table(root, path)
        for path in dict.fromkeys(paths)
        if path.startswith("data/catalog/")
        and path.endswith(".parquet")
        and Path(path).stem not in ("rejected", "leaks", "texts")
        and (root / path).is_file()
    ]


def _describe_table(root: Path, path: str) -> dict[str, Any]:
    table = pl.read_parquet(root / path)
    columns = [name for name in ("id", "label", "role", "sha256") if name in table.columns]
    content = table.select(columns).write_csv().encode()
    return {
        "name": Path(path).stem,
        "source": path,
        "rows": table.height,
        "columns": {name: str(dtype) for name, dtype in table.schema.items()},
        "digest": hashlib.sha256(content).hexdigest()[:32],
    }


def read_build_tags(root: Path) -> dict[str, str]:
    """Return the tags of a build's run that change meanwhile: data revision and champion."""
    tags = {"irgen.data_revision": str(data_revision(root))}
    link = root / "releases" / "champion"
    return tags | ({"irgen.champion": link.readlink().name} if link.is_symlink() else {})


def data_revision(root: Path) -> int:
    """Return the revision of the downloaded data; 0 before the first download."""
    try:
        return int(pl.read_parquet_metadata(Workspace.at(root).manifest).get("revision", 0))
    except (pl.exceptions.PolarsError, OSError, ValueError):
        return 0
