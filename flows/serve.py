"""Serve all deployments of ``prefect.yaml`` from one process, without a work pool or a worker:
``python -m flows.serve``."""

import os
import sys
import time
import urllib.request
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml
from prefect import Flow, serve
from prefect.deployments.runner import EntrypointType, RunnerDeployment
from prefect.events import DeploymentEventTrigger
from prefect.flows import load_flow_from_entrypoint
from prefect.schedules import Cron, Interval, Schedule
from prefect.settings import PREFECT_API_URL

from irgen.errors import IrgenError, redact

LOCAL_API = "http://127.0.0.1:4200/api"  # of `prefect server start`
START_SECONDS = 60.0  # for a server that is just starting
MOST_RUNS = (
    5  # at once: one holds the project, two wait for it, one update is dropped, one compares
)


def deployments(path: Path) -> list[RunnerDeployment]:
    """Return the deployments that ``prefect.yaml`` declares: flows, schedules and triggers."""
    declared = yaml.safe_load(path.read_text())["deployments"]
    return [_make_deployment(deployment) for deployment in declared]


def _make_deployment(declared: dict[str, Any]) -> RunnerDeployment:
    flow: Flow[..., Any] = load_flow_from_entrypoint(declared["entrypoint"])
    deployment = flow.to_deployment(
        name=declared["name"],
        description=declared["description"],
        schedules=[_make_schedule(item) for item in declared.get("schedules", [])],
        triggers=[DeploymentEventTrigger(**item) for item in declared.get("triggers", [])],
        entrypoint_type=EntrypointType.MODULE_PATH,  # a file's path would need a storage path
    )
    assert isinstance(deployment, RunnerDeployment)  # a coroutine only inside another one
    return deployment


def _make_schedule(item: dict[str, Any]) -> Schedule:
    if "cron" in item:
        return Cron(item["cron"], timezone=item["timezone"])
    return Interval(timedelta(seconds=item["interval"]))


def wait_for_server(address: str | None, seconds: float = START_SECONDS) -> None:
    """Wait until Prefect's server answers. Raises IrgenError if it does not within ``seconds``, or
    if there is no address: Prefect would then start a server that nobody can find."""
    if not address:
        raise IrgenError(
            "no Prefect server is named: start one (prefect server start) and export "
            f"PREFECT_API_URL={LOCAL_API}"
        )
    deadline, printed = time.monotonic() + seconds, False
    while time.monotonic() < deadline:
        health = f"{address.rstrip('/')}/health"
        with suppress(OSError, ValueError), urllib.request.urlopen(health, timeout=5):
            return
        if not printed:
            print(f"waiting for Prefect's server at {redact(address)}", flush=True)
            printed = True
        time.sleep(0.5)
    raise IrgenError(
        f"Prefect's server at {redact(address)} does not answer: start it (prefect server start), "
        "or correct PREFECT_API_URL"
    )


def main() -> int:
    """Serve until interrupted. The project is ``IRGEN_ROOT``, or the working folder."""
    root = Path(os.environ.get("IRGEN_ROOT", ".")).resolve()
    os.chdir(root)
    os.environ.setdefault("PREFECT_CLIENT_MAX_RETRIES", "7")
    try:
        wait_for_server(PREFECT_API_URL.value())
    except IrgenError as error:
        print(f"serve-flows: {error}", file=sys.stderr)
        return 2
    serve(*deployments(root / "prefect.yaml"), limit=MOST_RUNS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
