"""Connect to the MLflow store, translate its errors, and find experiments and runs in it."""

import getpass
import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from irgen.errors import TrackingError, redact
from irgen.tracking.locations import find_project, run_logs, tracking_uri
from irgen.tracking.run_log import safe_name

if TYPE_CHECKING:
    from mlflow import MlflowClient as MlflowClient
    from mlflow.entities import LoggedModel as LoggedModel
    from mlflow.entities import Run as Run

LOCK = "mlflow.lock"
TRAINING_VIEW = "?workflowType=machine_learning"  # else MLflow opens its view for chats
ALL_EXPERIMENTS = f"#/experiments{TRAINING_VIEW}"
LOCK_SECONDS = 30.0  # to wait until another process is through with the store
SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # stdout is for answers
}


class RefusedError(TrackingError):
    """MLflow answers, but refuses what it is sent."""


@contextmanager
def open_client(root: Path) -> Iterator["MlflowClient"]:
    """Yield a client; meanwhile no other process of the project uses the store. Raise TrackingError
    for any error of the block, RefusedError if MLflow refuses a request."""
    project = find_project(root)
    _import_mlflow(project)
    run_logs(project).mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(run_logs(project) / LOCK, timeout=LOCK_SECONDS):
            yield connect(project)
    except Timeout:
        raise TrackingError(f"another process has used MLflow for {LOCK_SECONDS:.0f} s") from None
    except Exception as error:  # drivers of stores raise anything
        raise _translate(error, project) from error


def connect(root: Path) -> "MlflowClient":
    """Return a client that gives up soon; create a new SQLite store's tables. Raise TrackingError
    if MLflow cannot be imported."""
    project = find_project(root)
    _import_mlflow(project)
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        (project / "mlruns" / "artifacts").mkdir(parents=True, exist_ok=True)
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic", "urllib3"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return MlflowClient(tracking_uri=tracking_uri(project))


def _import_mlflow(project: Path) -> None:
    """Import MLflow, which takes seconds, before the store is locked."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        import_module("mlflow")
        if tracking_uri(project).startswith("sqlite"):
            import_module("mlflow.store.tracking.sqlalchemy_store")
    except Exception as error:  # packages that do not fit together raise anything
        raise _translate(error, project) from error


def _translate(error: Exception, project: Path) -> TrackingError:
    """Turn an error of MLflow or its database driver into a short one."""
    reason = " ".join(str(error).split())
    if match := re.search(r"Connection refused|timed out|Name or service not known", reason):
        reason = match.group(0)
    is_refused = getattr(error, "error_code", "") in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")
    kind = RefusedError if is_refused else TrackingError
    return kind(redact(f"MLflow at {tracking_uri(project)} failed: {reason[:300]}"))


def format_uri(root: Path) -> str:
    """Return the tracking URI without a password."""
    return redact(tracking_uri(root))


def find_experiment(client: "MlflowClient", root: Path, name: str) -> str:
    """Return an experiment's id; create the experiment if there is none."""
    experiment = client.get_experiment_by_name(name)
    if experiment is not None:
        return experiment.experiment_id
    if os.environ.get("MLFLOW_TRACKING_URI"):
        return client.create_experiment(name)
    folder = find_project(root) / "mlruns" / "artifacts" / safe_name(name)
    return client.create_experiment(name, artifact_location=folder.as_uri())


def find_run(
    client: "MlflowClient", experiment: str, tags: dict[str, str], *, status: str = ""
) -> "Run | None":
    """Return the latest run of an experiment that has these tags and, if given, this status."""
    conditions = [f"tags.`{tag}` = '{quote(value)}'" for tag, value in tags.items()]
    conditions += [f"attributes.status = '{status}'"] if status else []
    runs = client.search_runs([experiment], " and ".join(conditions), max_results=1)
    return runs[0] if runs else None


def quote(value: str) -> str:
    """Return ``value`` without quotes, for a filter of MLflow's."""
    return value.replace("'", "")


def run_page(root: Path, experiment: str, run: str) -> str | None:
    """Return the address of a run in MLflow's pages; None without a server.

    ``experiment``, ``run``: their ids. The pages are the server's own unless ``IRGEN_MLFLOW_PAGES``
    says where browsers find them.
    """
    pages = _find_pages(root)
    return None if pages is None else f"{pages}/{run_link(experiment, run)}"


def model_page(root: Path, model: str, version: str) -> str | None:
    """Return the address of a model version in MLflow's pages, as ``run_page`` does."""
    pages = _find_pages(root)
    return None if pages is None else f"{pages}/#/models/{model}/versions/{version}"


def _find_pages(root: Path) -> str | None:
    uri = tracking_uri(root)
    if not uri.startswith("http"):
        return None
    return redact(os.environ.get("IRGEN_MLFLOW_PAGES") or uri).rstrip("/")


def run_link(experiment: str, run: str = "") -> str:
    """Return the address of a run within MLflow's pages, or that of an experiment's runs."""
    return f"#/experiments/{experiment}/runs{run and '/'}{run}{TRAINING_VIEW}"


def set_tags(client: "MlflowClient", run: str, tags: dict[str, str]) -> None:
    """Set tags of a run."""
    for tag, value in tags.items():
        client.set_tag(run, tag, value)


def source_tags(name: str) -> dict[str, str]:
    """Return the tags that say which program made a run, and which user."""
    tags = {"mlflow.source.name": name, "mlflow.source.type": "LOCAL"}
    with suppress(OSError, KeyError):
        tags["mlflow.user"] = getpass.getuser()
    return tags


def ui_command(root: Path, port: int) -> list[str]:
    """Return the command that serves MLflow's pages of the project's own store, to this machine
    alone."""
    server = ["server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    files = f"{find_project(root)}/mlruns/artifacts"
    stores = ["--backend-store-uri", tracking_uri(root), "--default-artifact-root", files]
    return [sys.executable, "-m", "mlflow", *server, *stores]
