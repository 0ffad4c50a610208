"""Locate the run logs, and the MLflow store that they are synced to."""

import os
from pathlib import Path

from irgen.files import digest

EXPERIMENTS = "/.dvc/tmp/exps/"  # DVC runs experiments in temporary folders below this one


def find_project(root: Path) -> Path:
    """Return the project of ``root``: itself, or the one whose DVC experiment runs in ``root``.

    >>> find_project(Path("/home/me/irgen/.dvc/tmp/exps/tmpab12")).as_posix()
    '/home/me/irgen'
    """
    return Path(f"{root.resolve()}/".split(EXPERIMENTS)[0])


def run_logs(root: Path) -> Path:
    """Return the folder of the project's run logs. DVC experiments share it."""
    return find_project(root) / ".cache" / "tracking"


def tracking_uri(root: Path) -> str:
    """Return ``MLFLOW_TRACKING_URI`` if it is set, else the project's own SQLite file."""
    default = f"sqlite:///{find_project(root)}/mlruns/mlflow.db"
    return os.environ.get("MLFLOW_TRACKING_URI") or default


def store_key(root: Path) -> str:
    """Return a digest of the tracking URI, which itself may contain a password."""
    return digest(tracking_uri(root))


def sync_lock(root: Path) -> Path:
    """Return the lock file of the process that syncs run logs to this store."""
    return run_logs(root) / f"sync-{store_key(root)[:12]}.lock"
