"""The tracking store: how it is reached, what ails it, and finding what is in it by its tags."""

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

from irgen.errors import TrackingError, redact
from irgen.tracking import provenance, run_log
from irgen.tracking.provenance import store

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

LOCK_SECONDS = 30.0  # for the one process that may talk to the store at a time
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # stdout is for answers
}


class RefusedError(TrackingError):
    """The store answers, but will not have what it is sent."""


def shown(home: Path) -> str:
    """The tracking URI as it may be printed: without a password."""
    return redact(store(home))


def load(home: Path) -> None:
    """Imports what ``connect`` needs, which takes seconds: nobody should wait for the store
    meanwhile. Raises TrackingError if it cannot."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import_module("mlflow")
        if store(home).startswith("sqlite"):
            import_module("mlflow.store.tracking.sqlalchemy_store")
    except Exception as error:  # packages that do not fit raise what they like
        raise failure(error, home) from error


def connect(home: Path) -> "MlflowClient":
    """A client of the store, set to give up soon; makes a new SQLite store's tables."""
    load(home)
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        (home / "mlruns" / "artifacts").mkdir(parents=True, exist_ok=True)
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic", "urllib3"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return MlflowClient(tracking_uri=store(home))


@contextmanager
def alone(home: Path) -> Iterator[None]:
    """Alone with the store; whatever goes wrong there comes out as TrackingError."""
    with run_log.locked(provenance.journals(home) / "lock", seconds=LOCK_SECONDS) as mine:
        if not mine:
            raise TrackingError("another process has been publishing for long")
        try:
            yield
        except Exception as error:  # drivers of stores raise what they like
            raise failure(error, home) from error


def failure(error: Exception, home: Path) -> TrackingError:
    """What the store or its driver raised, as one short error; RefusedError if it did answer."""
    reason = " ".join(str(error).split())
    if match := re.search(r"Connection refused|timed out|Name or service not known", reason):
        reason = match.group(0)
    refused = getattr(error, "error_code", "") in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")
    kind = RefusedError if refused else TrackingError
    return kind(redact(f"MLflow at {store(home)} failed: {reason[:300]}"))


def experiment(client: "MlflowClient", home: Path, name: str) -> str:
    """The experiment's id; it is made if need be."""
    found = client.get_experiment_by_name(name)
    if found is not None:
        return found.experiment_id
    own = not os.environ.get("MLFLOW_TRACKING_URI")
    files = (home.resolve() / "mlruns" / "artifacts" / run_log.plain(name)).as_uri()
    return client.create_experiment(name, artifact_location=files if own else None)


def find_run(client: "MlflowClient", experiment: str, tags: dict[str, str]) -> "Run | None":
    """The latest run of ``experiment`` with these tags, if there is one."""
    wanted = " and ".join(f"tags.`{tag}` = '{plain(value)}'" for tag, value in tags.items())
    found = client.search_runs([experiment], wanted, max_results=1)
    return found[0] if found else None


def plain(value: str) -> str:
    """``value`` as it may stand between quotes in a filter."""
    return value.replace("'", "")


def build_page(home: Path, name: str, build: str) -> str | None:
    """The address of a build's run in MLflow's pages, which are the server's own if
    ``IRGEN_MLFLOW_PAGES`` does not say where browsers find them; None if no server is in use, or
    it does not have the build. Raises TrackingError."""
    uri = store(home)
    if not uri.startswith("http"):
        return None
    with alone(home):
        client = connect(home)
        within = experiment(client, home, name)
        found = find_run(client, within, {"irgen.parent_of": run_log.plain(build)})
    if found is None:
        return None
    pages = os.environ.get("IRGEN_MLFLOW_PAGES") or uri
    return f"{redact(pages).rstrip('/')}/#/experiments/{within}/runs/{found.info.run_id}"


def source_tags(name: str) -> dict[str, str]:
    """The tags that say what made a run, and who."""
    tags = {"mlflow.source.name": name, "mlflow.source.type": "LOCAL"}
    with suppress(OSError, KeyError):
        tags["mlflow.user"] = getpass.getuser()
    return tags


def metric_name(name: str) -> str:
    """``name`` with what MLflow refuses replaced.

    >>> metric_name("precision@10")
    'precision/10'
    """
    return re.sub(r"[^\w\-. /]", "_", name.replace("@", "/"))[:250]


def ui_command(home: Path, port: int) -> list[str]:
    """The command that serves MLflow's pages over the project's own store, on this machine only."""
    server = ["server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    files = f"{home.resolve()}/mlruns/artifacts"
    place = ["--backend-store-uri", store(home), "--default-artifact-root", files]
    return [sys.executable, "-m", "mlflow", *server, *place]
