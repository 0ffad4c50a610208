"""Locate the run logs, and the MLflow store that they are synced to."""

import os
import re
from pathlib import Path, PurePosixPath

from irgen.errors import redact
from irgen.files.digests import digest
from irgen.params import Params

EXPERIMENTS = "/.dvc/tmp/exps/"  # DVC runs experiments in temporary folders below this one
# Experiments of their own beside the one of the builds, which has the catalogue's name.
STAGES, RELEASES, DRIFT, COMPARISONS = "stages", "releases", "drift", "comparisons"


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


def has_store(root: Path) -> bool:
    """Tell whether there is an MLflow store: one that is set, or the project's own file."""
    own = find_project(root) / "mlruns" / "mlflow.db"
    return bool(os.environ.get("MLFLOW_TRACKING_URI")) or own.exists()


def store_key(root: Path) -> str:
    """Return a digest of the tracking URI, which itself may contain a password."""
    return digest(tracking_uri(root))


def sync_lock(root: Path) -> Path:
    """Return the lock file of the process that syncs run logs to this store."""
    return run_logs(root) / f"sync-{store_key(root)[:12]}.lock"


def experiment_name(params: Params, part: str = "") -> str:
    """Return the name of the builds' experiment, or of the one for STAGES, RELEASES, … (``part``):
    ``photos``, ``photos/stages``."""
    name = name_experiment(params.tracking.experiment, params.download.source)
    return f"{name}/{part}" if part else name


def name_experiment(experiment: str, source: str) -> str:
    """Return ``tracking.experiment``, or the name of the source if it is auto."""
    return name_source(source) if experiment == "auto" else experiment


def name_source(source: str) -> str:
    """Return the name of a source: that of its folder, file or bucket.

    >>> [name_source(text) for text in ("digits", "../photos/", "s3://shop", "https://a.b/c.tar.gz")]
    ['digits', 'photos', 'shop', 'c']
    """
    address = redact(source).partition("?")[0]
    local = address if "://" in address else Path(address).resolve().as_posix()
    name = PurePosixPath(local).name
    return re.sub(r"(\.tar)?\.(gz|tar|tgz|zip|csv|parquet)$", "", name) or "images"
