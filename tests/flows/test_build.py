"""The flow ``build`` on a small pipeline, with a real Prefect server."""

import json
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from flows import graph
from flows.build import build
from irgen.errors import IrgenError
from irgen.files.locks import mend_lock_file

from .conftest import ROOT, WAIT_SECONDS, PrefectServer, Toy, alive, until

pytestmark = pytest.mark.slow


def start(toy: Toy, flow: str = "build") -> "subprocess.Popen[bytes]":
    """Start the flow in another process, which a test kills."""
    script = f"from flows.{flow} import {flow}; {flow}({str(toy.root)!r})"
    return subprocess.Popen([sys.executable, "-c", script], cwd=ROOT)


def outcomes(server: PrefectServer, run: str = "") -> dict[str, str]:
    """Return the outcome of each stage of the last build, or of flow run ``run``."""
    which = {"flow_run_id": {"any_": [run]}} if run else {}
    asked = {"artifacts": {"key": {"any_": ["stages"]}, **which}, "sort": "CREATED_DESC"}
    table = json.loads(server.ask("/artifacts/filter", asked)[0]["data"])
    return {row["stage"]: row["outcome"] for row in table}


def states(server: PrefectServer, since: datetime) -> list[tuple[str, str, str]]:
    """Flow, state and message of flow runs begun after a time, the latest first."""
    begun = {"expected_start_time": {"after_": since.isoformat()}}
    wanted = {"flow_runs": begun, "sort": "EXPECTED_START_TIME_DESC"}
    runs = server.ask("/flow_runs/filter", wanted)
    flows = {flow["id"]: flow["name"] for flow in server.ask("/flows/filter", {})}
    return [(flows[r["flow_id"]], r["state"]["name"], r["state"]["message"] or "") for r in runs]


def test_what_came_of_each_stage_is_left_as_a_table(
    prefect_server: PrefectServer, toy: Toy
) -> None:
    state = build(str(toy.root), return_state=True)
    assert state.name == "Built"
    assert set(outcomes(prefect_server).values()) == {"ran"}
    assert toy.ran() == ["first", "last", "left", "right"]

    build(str(toy.root))
    assert set(outcomes(prefect_server).values()) == {"skipped"}

    (toy.root / "params.yaml").write_text("toy: {right: 2}\n")
    build(str(toy.root))
    stages = {"first": "skipped", "left": "skipped", "right": "ran", "last": "ran"}
    assert outcomes(prefect_server) == stages
    assert toy.ran() == ["last", "right"]

    (toy.root / "params.yaml").write_text("toy: {right: 1}\n")
    build(str(toy.root))
    stages |= {"right": "restored", "last": "restored"}
    assert outcomes(prefect_server) == stages
    assert toy.ran() == []


def test_a_stage_that_fails_is_tried_again_and_fails_the_flow_in_its_own_words(
    prefect_server: PrefectServer, toy: Toy
) -> None:
    toy.fault("right", "always")
    state = build(str(toy.root), return_state=True)
    assert state.is_failed() and "irgen right: this is what went wrong (always)" in state.message
    assert toy.ran() == ["first", "left", "right", "right"]  # as often as its meta allows
    stages = {"first": "ran", "left": "ran", "right": "failed", "last": "not run"}
    assert outcomes(prefect_server) == stages

    toy.fault("right", "once")
    assert build(str(toy.root), return_state=True).is_completed()
    assert toy.ran() == ["last", "right", "right"]
    runs = prefect_server.ask("/task_runs/filter", {"task_runs": {"name": {"any_": ["right"]}}})
    assert {1, 2} >= {run["run_count"] for run in runs}


def test_a_stage_s_output_is_in_the_log_and_its_tags_on_its_task(
    prefect_server: PrefectServer, toy: Toy
) -> None:
    build(str(toy.root))

    def said() -> bool:
        logs = prefect_server.ask("/logs/filter", {"sort": "TIMESTAMP_DESC", "limit": 200})
        return {"working on first", "working on last"} <= {log["message"] for log in logs}

    until(said, "the stages' output is not in the log")
    tags = {"tags": {"all_": ["quick"]}}
    until(lambda: prefect_server.ask("/task_runs/filter", {"task_runs": tags}), "no tag is there")
    runs = prefect_server.ask("/task_runs/filter", {"task_runs": tags})
    assert {run["name"] for run in runs} == {"first"}


def test_a_folder_without_a_pipeline_is_told(prefect_server: PrefectServer, tmp_path: Path) -> None:
    with pytest.raises(IrgenError, match=r"has no dvc\.yaml: give the project's folder"):
        build(str(tmp_path))


def killed_in(toy: Toy, stage: str) -> list[int]:
    """Kill a build while it is in a stage; return the processes of the stage."""
    toy.fault(stage, "sleep")
    children = toy.root / "children"
    children.unlink(missing_ok=True)
    running = start(toy)
    try:
        until(lambda: children.exists() and children.read_text(), "the stage did not start")
    finally:
        running.kill()
        running.wait()
    return [int(each) for each in children.read_text().split()]


def test_a_build_killed_in_a_stage_is_gone_on_with_by_the_next(
    prefect_server: PrefectServer, toy: Toy
) -> None:
    start_time = datetime.now(UTC)
    for stage in ("first", "right"):
        pids = killed_in(toy, stage)
        until(lambda pids=pids: not any(map(alive, pids)), "the stage outlived its flow")
        toy.mend(stage)
    toy.ran()
    assert build(str(toy.root), return_state=True).is_completed()
    assert outcomes(prefect_server)["first"] == "skipped"  # done before the second kill
    assert {"last", "right"} <= set(toy.ran())
    runs = states(prefect_server, start_time)
    messages = [message for _, state, message in runs if state == "Crashed"]
    assert len(messages) == 2 and "its process was killed" in messages[0]


def test_a_lock_file_that_a_killed_dvc_left_cut_off_is_mended(
    prefect_server: PrefectServer, toy: Toy
) -> None:
    build(str(toy.root))
    build(str(toy.root))  # keeps the lock file of the first
    path = toy.root / "dvc.lock"
    text = path.read_text()
    path.write_text(text[: len(text) // 2 + 1])
    build(str(toy.root))
    assert set(outcomes(prefect_server).values()) == {"skipped"}
    assert path.read_text() == text


def test_dvc_reads_every_lock_file_that_is_taken_for_whole(toy: Toy) -> None:
    command = [sys.executable, "-m", "dvc", "repro", "-q"]
    subprocess.run(command, cwd=toy.root, check=True, timeout=120)
    path, copy = toy.root / "dvc.lock", toy.root / "copy"
    text = path.read_text()
    taken = 0
    for end in [position + 1 for position, letter in enumerate(text) if letter == "\n"]:
        path.write_text(text[:end])
        if not mend_lock_file(path, copy):
            taken += 1
            assert len(graph.read(toy.root)) == 4
        copy.unlink(missing_ok=True)
    assert taken > 4


def test_a_server_that_is_restarted_in_mid_run_stops_nothing(
    prefect_server: PrefectServer, toy: Toy
) -> None:
    start_time = datetime.now(UTC)
    wait = "import time; time.sleep(8)\n"
    (toy.root / "work.py").write_text(wait + (toy.root / "work.py").read_text())
    running = start(toy)
    try:
        until(lambda: (toy.root / "data" / "first").exists(), "the build did not start")
        prefect_server.kill()
        time.sleep(3)
        prefect_server.start()
        assert running.wait(WAIT_SECONDS) == 0
    finally:
        running.kill()
    assert toy.ran() == ["first", "last", "left", "right"]
    assert states(prefect_server, start_time)[0][:2] == ("build", "Built")
    assert set(outcomes(prefect_server).values()) == {"ran"}
