"""Where a run comes from: the build it belongs to, its commit, its stage's hash, its tables."""

import hashlib
import os
import platform
import subprocess
from functools import lru_cache
from pathlib import Path
from typing import Any

import polars as pl
import psutil
import yaml

from irgen.files import digest
from irgen.workspace import Workspace

EXPERIMENTS = "/.dvc/tmp/exps/"
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in C: a stage reads a thousand lines


def project(root: Path) -> Path:
    """The project ``root`` belongs to: itself, or the one whose DVC experiment runs in ``root``.

    >>> project(Path("/home/me/irgen/.dvc/tmp/exps/tmpab12")).as_posix()
    '/home/me/irgen'
    """
    return Path(f"{root.resolve()}/".split(EXPERIMENTS)[0])


def journals(root: Path) -> Path:
    """Where journals lie: in the project's cache, also for an experiment in a temporary copy."""
    return project(root) / ".cache" / "tracking"


def store(root: Path) -> str:
    """The tracking URI: ``MLFLOW_TRACKING_URI`` if set, else SQLite inside the project."""
    home = project(root)
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home}/mlruns/mlflow.db"


def store_key(root: Path) -> str:
    """What tells one store from another, and tells nothing else (a URI may hold a password)."""
    return digest(store(root))


def publisher_lock(root: Path) -> Path:
    """The file that the store's publisher holds locked."""
    return journals(root) / f"publisher-{store_key(root)[:12]}"


def build(process: psutil.Process | None = None) -> str:
    """The key of the build this process belongs to: ``IRGEN_BUILD`` if set, else the nearest DVC
    command above it, else the process itself. Stages of one ``dvc repro`` share it."""
    if chosen := os.environ.get("IRGEN_BUILD"):
        return chosen
    process = process or psutil.Process()
    owner = next((parent for parent in process.parents() if _is_dvc(parent)), process)
    return f"{platform.node()}-{owner.pid}-{int(owner.create_time())}"


def _is_dvc(process: psutil.Process) -> bool:
    try:
        words = process.cmdline()[:4]
    except psutil.Error:
        return False
    return any(Path(word).name == "dvc" for word in words) and Path(words[0]).name not in SHELLS


SHELLS = {"sh", "bash", "dash", "zsh", "fish", "make"}


def tags(root: Path, stage: str) -> dict[str, str]:
    """What tells this run from others: commit, stage hash, DVC experiment and the comparison it
    belongs to, machine."""
    found = {"irgen.stage": stage, "irgen.host": platform.node(), **_commit(root)}
    if (stage_digest := stage_hash(root, stage)) is not None:
        found["dvc.stage_hash"] = stage_digest
    for tag, variable in [
        ("dvc.experiment", "DVC_EXP_NAME"),
        ("dvc.baseline", "DVC_EXP_BASELINE_REV"),
        ("irgen.comparison", "IRGEN_COMPARISON"),
    ]:
        if os.environ.get(variable):
            found[tag] = os.environ[variable]
    return found


def _commit(root: Path) -> dict[str, str]:
    commit = _git(root, "rev-parse", "HEAD")
    if commit is None:
        return {}
    changes = _git(root, "status", "--porcelain", "--untracked-files=no", "--", ".", ":!dvc.lock")
    dirty = "true" if changes else "false"
    return {"mlflow.source.git.commit": commit, "git.dirty": dirty}


def _git(root: Path, *arguments: str) -> str | None:
    try:
        return subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True,
            text=True,
            check=True,
            timeout=20,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def declared(root: Path, stage: str) -> dict[str, Any]:
    """The stage's entry in ``dvc.yaml``; empty if there is none."""
    return _yaml(root / "dvc.yaml").get("stages", {}).get(stage) or {}


def stage_hash(root: Path, stage: str) -> str | None:
    """The digest of what decides the stage's result: command, dependencies, parameters.

    It is taken before the stage runs and equals ``lock_hash`` of the entry that DVC writes into
    ``dvc.lock`` after it. None if ``dvc.yaml`` does not know the stage.
    """
    entry = declared(root, stage)
    if not entry:
        return None
    outputs = {
        out["path"]: out.get("md5")
        for other in _yaml(root / "dvc.lock").get("stages", {}).values()
        for out in other.get("outs", [])
    }
    dependencies = {
        path: outputs[path] if path in outputs else _md5(root / path)
        for path in entry.get("deps", [])
    }
    values = _yaml(root / "params.yaml")
    parameters = {key: _at(values, key) for key in entry.get("params", [])}
    return _entry_hash(entry["cmd"], dependencies, parameters)


def lock_hash(root: Path, stage: str) -> str | None:
    """The same digest from the stage's entry in ``dvc.lock``; None if there is none."""
    entry = _yaml(root / "dvc.lock").get("stages", {}).get(stage)
    if entry is None:
        return None
    dependencies = {each["path"]: each.get("md5") for each in entry.get("deps", [])}
    return _entry_hash(entry["cmd"], dependencies, entry.get("params", {}).get("params.yaml", {}))


def locked_outs(root: Path, stage: str) -> list[dict[str, Any]]:
    """The stage's outputs as ``dvc.lock`` has them: path, checksum and size."""
    entry = _yaml(root / "dvc.lock").get("stages", {}).get(stage) or {}
    return [
        {key: out[key] for key in ("path", "md5", "size") if key in out}
        for out in entry.get("outs", [])
    ]


def _entry_hash(command: str, dependencies: dict[str, Any], parameters: dict[str, Any]) -> str:
    return digest(command, dependencies, parameters)


def _at(tree: Any, key: str) -> Any:
    for part in key.split("."):
        tree = tree.get(part) if isinstance(tree, dict) else None
    return tree


def _md5(path: Path) -> str | None:
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def _yaml(path: Path) -> dict[str, Any]:
    try:
        return _parsed(path.read_text())
    except (OSError, yaml.YAMLError):
        return {}


@lru_cache(maxsize=3)  # dvc.yaml, dvc.lock, params.yaml: asked about stage by stage
def _parsed(text: str) -> dict[str, Any]:
    return yaml.load(text, Loader=LOADER) or {}


def tables(root: Path, stage: str) -> list[dict[str, Any]]:
    """The catalogue tables the stage reads or writes, each with its rows, columns and digest.

    The digest is over what the images are (id, label, role, content hash), in the table's order.
    """
    entry = declared(root, stage)
    paths = [path if isinstance(path, str) else next(iter(path)) for path in entry.get("deps", [])]
    paths += [path if isinstance(path, str) else next(iter(path)) for path in entry.get("outs", [])]
    found = []
    for path in dict.fromkeys(paths):
        is_table = path.startswith("data/catalog/") and path.endswith(".parquet")
        is_table = is_table and Path(path).stem not in ("rejected", "leaks")
        if is_table and (root / path).is_file():
            found.append(_table(root, path))
    return found


def _table(root: Path, path: str) -> dict[str, Any]:
    table = pl.read_parquet(root / path)
    columns = [name for name in ("id", "label", "role", "sha256") if name in table.columns]
    content = table.select(columns).write_csv().encode()
    return {
        "name": Path(path).stem,
        "source": path,
        "rows": table.height,
        "columns": {name: str(kind) for name, kind in table.schema.items()},
        "digest": hashlib.sha256(content).hexdigest()[:32],
    }


def standing(root: Path) -> dict[str, str]:
    """What a build came to stand on, as tags: the revision of its data, and the champion that is
    served while it ends."""
    found = {"irgen.data_revision": str(data_revision(root))}
    if (champion := champion_name(root)) is not None:
        found["irgen.champion"] = champion
    return found


def data_revision(root: Path) -> int:
    """The revision the downloaded data stands at; 0 before the first download."""
    try:
        return int(pl.read_parquet_metadata(Workspace.at(root).manifest).get("revision", 0))
    except (pl.exceptions.PolarsError, OSError, ValueError):
        return 0


def champion_name(root: Path) -> str | None:
    """The folder's name of the release that is served; None if there is none."""
    try:
        return (root / "releases" / "champion").readlink().name
    except OSError:
        return None
