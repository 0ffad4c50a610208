"""All deployments of ``prefect.yaml`` from this one process, without a work pool or a worker:
``python -m flows.serve``."""

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml
from prefect import Flow, serve
from prefect.deployments.runner import RunnerDeployment
from prefect.events import DeploymentEventTrigger
from prefect.flows import load_flow_from_entrypoint
from prefect.schedules import Cron, Interval, Schedule

AT_ONCE = 3  # one has the project, one waits for it, one looks and finds it taken


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
    )
    assert isinstance(made, RunnerDeployment)  # a coroutine only for who is one
    return made


def _schedule(said: dict[str, Any]) -> Schedule:
    if "cron" in said:
        return Cron(said["cron"], timezone=said["timezone"])
    return Interval(timedelta(seconds=said["interval"]))


def main() -> None:
    """Serves until it is interrupted. The project is ``IRGEN_ROOT``, or the folder it is in."""
    root = Path(os.environ.get("IRGEN_ROOT", ".")).resolve()
    os.chdir(root)
    os.environ.setdefault("PREFECT_CLIENT_MAX_RETRIES", "7")
    serve(*deployments(root / "prefect.yaml"), limit=AT_ONCE)


if __name__ == "__main__":
    main()
