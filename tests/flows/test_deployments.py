"""The deployments of prefect.yaml on a real server, with a real worker."""

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import polars as pl
import pytest
import yaml

from flows import events, serve, training_revision
from irgen.errors import IrgenError

from .. import server_program
from .conftest import ROOT, PrefectServer, Toy, alive, until

pytestmark = pytest.mark.slow

PREFECT = [sys.executable, "-m", "prefect", "--no-prompt"]
NAMES = {"build", "update", "retrain", "compare"}


def prefect(*arguments: str, root: Path) -> None:
    environment = os.environ | {"IRGEN_ROOT": str(root)}
    done = subprocess.run(
        [*PREFECT, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, toy_template: Path) -> Toy:
    """Make a project to deploy: toy stages, and a source of images."""
    import shutil

    root = tmp_path_factory.mktemp("deployed") / "toy"
    shutil.copytree(toy_template, root)
    toy = Toy.__new__(Toy)
    toy.root = root
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["download"]["source"] = "images"
    (root / "params.yaml").write_text(yaml.safe_dump(params | {"toy": {"right": 1}}))
    (root / "images" / "a").mkdir(parents=True)
    (root / "images" / "a" / "0.png").write_bytes(b"looked at by name only")
    return toy


@pytest.fixture(scope="module")
def deployed(prefect_server: PrefectServer, project: Toy) -> dict[str, Any]:
    """Return the server's record of each deployment after ``prefect deploy --all``."""
    prefect("work-pool", "create", "irgen", "--type", "process", root=project.root)
    prefect("deploy", "--all", root=project.root)
    deployments = prefect_server.ask("/deployments/filter", {})
    return {each["name"]: each for each in deployments}


def runs(server: PrefectServer, deployment: dict[str, Any], *states: str) -> list[dict[str, Any]]:
    asked = {"flow_runs": {"deployment_id": {"any_": [deployment["id"]]}}, "limit": 100}
    flow_runs = server.ask("/flow_runs/filter", asked)
    return [run for run in flow_runs if run["state"]["name"] in states or not states]


def test_every_flow_is_deployed_with_its_schedule_and_its_events(
    prefect_server: PrefectServer, deployed: dict[str, Any], project: Toy
) -> None:
    assert set(deployed) == NAMES
    schedules = {
        name: [each["schedule"] for each in deployment["schedules"]]
        for name, deployment in deployed.items()
    }
    assert schedules["build"][0]["cron"] == "0 3 * * 0"
    assert schedules["update"][0]["interval"] == 900
    assert schedules["retrain"] == schedules["compare"] == []
    automations = prefect_server.ask("/automations/filter", {})
    started_by = {
        expected: automation["actions"][0]["deployment_id"]
        for automation in automations
        for expected in automation["trigger"]["expect"]
    }
    assert started_by == {
        events.CHANGED: deployed["update"]["id"],
        events.DRIFTED: deployed["retrain"]["id"],
    }
    step = deployed["update"]["pull_steps"][0]
    assert step["prefect.deployments.steps.set_working_directory"]["directory"] == str(project.root)


def test_no_deployment_has_a_limit_of_prefect_s(deployed: dict[str, Any]) -> None:
    """Its slots are leases in the server's memory: a restart would kill the run that has one."""
    assert not [name for name, each in deployed.items() if each["global_concurrency_limit"]]


def test_a_schedule_makes_runs(prefect_server: PrefectServer, deployed: dict[str, Any]) -> None:
    """Some versions of Prefect's dependencies together make none, and say nothing."""
    for name in ("build", "update"):
        until(
            lambda name=name: runs(prefect_server, deployed[name], "Scheduled", "Late"),
            f"{name} has a schedule, but no run was scheduled",
            prefect_server.told,
        )


def test_what_is_served_is_what_is_deployed() -> None:
    served = {each.name: each for each in serve.deployments(ROOT / "prefect.yaml")}
    assert set(served) == NAMES
    declared = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    assert {each["name"]: each["entrypoint"] for each in declared} == {
        name: each.entrypoint for name, each in served.items()
    }
    (weekly,), (often,) = served["build"].schedules, served["update"].schedules
    assert weekly.schedule.cron == "0 3 * * 0" and often.schedule.interval.seconds == 900
    (trigger,) = served["update"].triggers
    assert trigger.expect == {events.CHANGED} and trigger.within.seconds == 10


@pytest.fixture
def worker(
    prefect_server: PrefectServer, deployed: dict[str, Any], project: Toy, tmp_path: Path
) -> Iterator[Path]:
    """Start a worker of the pool, and yield its log."""
    log = tmp_path / "worker.log"
    command = [*PREFECT, "worker", "start", "--pool", "irgen", "--limit", "5"]
    environment = os.environ | {"IRGEN_ROOT": str(project.root)}
    process = server_program.start(command, log, environment, tmp_path)
    yield log
    server_program.kill(process)


def post(server: PrefectServer, name: str, times: int) -> None:
    """Post events as a bucket's notifications do. They come in one request, and so within one
    window on a busy machine too."""
    event = {
        "event": name,
        "resource": {"prefect.resource.id": "somebody"},
        "occurred": datetime.now(UTC).isoformat(),
    }
    server.ask("/events", [event | {"id": str(uuid4())} for _ in range(times)])


def test_an_event_starts_an_update_and_many_start_one(
    prefect_server: PrefectServer, deployed: dict[str, Any], project: Toy, worker: Path
) -> None:
    before = {run["id"] for run in runs(prefect_server, deployed["update"])}
    post(prefect_server, events.CHANGED, times=5)

    def started() -> list[dict[str, Any]]:
        flow_runs = runs(prefect_server, deployed["update"])
        return [r for r in flow_runs if r["id"] not in before and not r["auto_scheduled"]]

    until(started, "the event started no run", worker.read_text)
    until(
        lambda: [
            r for r in started() if r["state"]["type"] not in ("SCHEDULED", "PENDING", "RUNNING")
        ],
        "the update did not end",
        worker.read_text,
    )
    (run,) = started()
    assert run["state"]["name"] == "Built", run["state"]["message"] + worker.read_text()
    assert project.ran() == ["first", "last", "left", "right"]


def test_a_dropped_update_ends_as_such_and_not_as_a_crash(
    prefect_server: PrefectServer, deployed: dict[str, Any], project: Toy, worker: Path
) -> None:
    from flows import lock
    from flows.lock import Holder

    holder = Holder(flow="build", run="someone", process=1)
    with lock.hold(project.root, holder, on_wait=None):
        made = prefect_server.ask(f"/deployments/{deployed['update']['id']}/create_flow_run", {})

        def state() -> dict[str, Any]:
            return prefect_server.ask(f"/flow_runs/{made['id']}")["state"]

        until(
            lambda: state()["type"] not in ("SCHEDULED", "PENDING", "RUNNING"),
            "the update did not end",
            worker.read_text,
        )
        import time

        time.sleep(3)  # the worker has its say when the process has ended
        assert (state()["type"], state()["name"]) == ("CANCELLED", "Dropped")
        assert "flow run someone" in state()["message"]


def test_a_retrain_that_is_cancelled_is_taken_back(
    prefect_server: PrefectServer, deployed: dict[str, Any], project: Toy, worker: Path
) -> None:
    manifest = project.root / "data" / "download" / "manifest.parquet"
    manifest.parent.mkdir(parents=True)
    pl.DataFrame({"key": ["a"]}).write_parquet(manifest, metadata={"revision": "7"})
    before = training_revision.read(project.root)
    (project.root / "words.txt").write_text("others")
    project.fault("last", "sleep")
    asked = f"/deployments/{deployed['retrain']['id']}/create_flow_run"
    made = prefect_server.ask(asked, {"parameters": {"root": str(project.root), "force": True}})
    until((project.root / "children").exists, "no stage was begun", worker.read_text)
    assert training_revision.read(project.root) == 7 != before
    cancelling = {"state": {"type": "CANCELLING", "name": "Cancelling"}, "force": True}
    prefect_server.ask(f"/flow_runs/{made['id']}/set_state", cancelling)

    def ended() -> bool:
        return bool(prefect_server.ask(f"/flow_runs/{made['id']}")["state"]["type"] == "CANCELLED")

    until(ended, "the run was not cancelled", worker.read_text)
    until(
        lambda: training_revision.read(project.root) == before, "it is not back", worker.read_text
    )
    last = training_revision.last_retrain(project.root)
    assert (
        last is not None
        and last.state == "rejected"
        and training_revision.running_retrain(project.root) is None
    )
    for number in (project.root / "children").read_text().split():
        until(lambda number=number: not alive(int(number)), "the stage goes on")


def test_without_a_server_nothing_is_served_and_the_remedy_is_told() -> None:
    with pytest.raises(IrgenError, match=r"export PREFECT_API_URL=http://127\.0\.0\.1:4200/api"):
        serve.wait_for_server(None)
    with pytest.raises(IrgenError, match=r"127\.0\.0\.1:9/api does not answer: start it"):
        serve.wait_for_server("http://127.0.0.1:9/api", seconds=1)
