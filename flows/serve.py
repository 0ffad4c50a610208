"""All deployments of ``prefect.yaml`` from this one process, without a work pool or a worker:
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

HERE = "http://127.0.0.1:4200/api"  # of `prefect server start`
PATIENCE = 60.0  # seconds for a server that is just starting
AT_ONCE = 5  # one has the project, two wait for it, one looks and finds it taken, one compares


def deployments(path: Path) -> list[RunnerDeployment]:
    """What ``prefect.yaml`` declares, to be served: flows, schedules and triggers."""
    return [_deployment(said) for said in yaml.safe_load(path.read_text())["deployments"]]


def _deployment(said: dict[str, Any]) -> RunnerDeployment:
    flow: Flow[..., Any] = load_flow_from_entrypoint(said["entrypoint"])
    made = flow.to_deployment(
        name=said["name"],
        description=said["description"],
        schedules=[_schedule(each) for each in said.get("schedules", [])],
        triggers=[DeploymentEventTrigger(**each) for each in said.get("triggers", [])],
        entrypoint_type=EntrypointType.MODULE_PATH,  # as there; a file's would want a storage path
    )
    assert isinstance(made, RunnerDeployment)  # a coroutine only for who is one
    return made


def _schedule(said: dict[str, Any]) -> Schedule:
    if "cron" in said:
        return Cron(said["cron"], timezone=said["timezone"])
    return Interval(timedelta(seconds=said["interval"]))


def meet(address: str | None, seconds: float = PATIENCE) -> None:
    """Returns when Prefect's server answers. Raises IrgenError if it does not within so many
    ``seconds``, or none is named: then Prefect would start one that nobody can find."""
    if not address:
        raise IrgenError(
            "no Prefect server is named: start one (prefect server start) and export "
            f"PREFECT_API_URL={HERE}"
        )
    deadline, told = time.monotonic() + seconds, False
    while time.monotonic() < deadline:
        health = f"{address.rstrip('/')}/health"
        with suppress(OSError, ValueError), urllib.request.urlopen(health, timeout=5):
            return
        if not told:
            print(f"waiting for Prefect's server at {redact(address)}", flush=True)
            told = True
        time.sleep(0.5)
    raise IrgenError(
        f"Prefect's server at {redact(address)} does not answer: start it (prefect server start), "
        "or correct PREFECT_API_URL"
    )


def main() -> int:
    """Serves until it is interrupted. The project is ``IRGEN_ROOT``, or the folder it is in."""
    root = Path(os.environ.get("IRGEN_ROOT", ".")).resolve()
    os.chdir(root)
    os.environ.setdefault("PREFECT_CLIENT_MAX_RETRIES", "7")
    try:
        meet(PREFECT_API_URL.value())
    except IrgenError as error:
        print(f"serve-flows: {error}", file=sys.stderr)
        return 2
    serve(*deployments(root / "prefect.yaml"), limit=AT_ONCE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
