"""Nothing tracked is lost and nothing is logged twice, whatever is killed, down or full."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from irgen.errors import TrackingError
from irgen.files.workspace import Workspace
from irgen.params import Params
from irgen.tracking import mlflow_store, run_log, sync
from irgen.tracking.locations import run_logs
from irgen.tracking.recorder import record_stage

from .. import small_disk
from .conftest import LOGGED, history, run_stage, runs, wait_for, write_outputs

KILLED = """
import os, signal, sys
from pathlib import Path
from irgen.params import load
from irgen.tracking.recorder import record_stage

from irgen.files.workspace import Workspace
home = Path(sys.argv[1])
with record_stage("tokenizer", load(Path(sys.argv[2])), Workspace.at(home), home) as record:
    record.log({"loss": 1.0}, 1)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_stage_is_logged_as_killed_by_the_next_sync(home: Path, root: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(home), str(root / "params.yaml")]
    subprocess.run(command, env=os.environ | {"PYTHONPATH": str(root)}, timeout=60)
    path = next(run_logs(home).glob("*/*.jsonl"))
    with path.open("a") as file:
        file.write('{"kind": "metrics", "val')  # the line it was writing
    assert sync.sync_all(home) == 1
    parents, children = runs(mlflow_store.connect(home))
    assert children[0].info.status == parents[0].info.status == "KILLED"
    assert children[0].data.metrics == {"loss": 1.0}


def test_a_replay_that_was_cut_off_and_done_again_logs_nothing_twice(
    home: Path, params: Params, no_sync: None
) -> None:
    run_stage(home, params)
    assert sync.sync_all(home) == 1
    path = next(run_logs(home).glob("*/*.jsonl"))
    path.with_suffix(".state").unlink()
    assert sync.sync_all(home) == 1
    client = mlflow_store.connect(home)
    parents, children = runs(client)
    assert (len(parents), len(children)) == (1, 1)
    assert len(history(client, children[0].info.run_id, "loss")) == 3


@pytest.mark.parametrize("left", [b"", b'{"done": tr', b"\xff\x00"])
def test_a_run_log_with_an_unreadable_state_is_synced_again_and_logs_nothing_twice(
    home: Path, params: Params, no_sync, left: bytes
) -> None:
    run_stage(home, params)
    assert sync.sync_all(home) == 1
    (path,) = run_logs(home).glob("*/*.jsonl")
    path.with_suffix(".state").write_bytes(left)
    assert run_log.list_unsynced(run_logs(home)) == [path]
    run_log.delete_synced(run_logs(home), days=0)
    assert sync.sync_all(home) == 1
    assert run_log.list_unsynced(run_logs(home)) == []
    parents, children = runs(mlflow_store.connect(home))
    assert (len(parents), len(children)) == (1, 1)


@pytest.mark.slow
def test_a_server_that_is_down_and_one_that_dies_cost_one_warning_and_no_metric(
    home: Path,
    params: Params,
    mlflow_server,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server.uri)
    run_stage(home, params)  # the server is down all the time
    run_stage(home, params, stage="retriever")
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1 and "Connection refused; the run goes on" in lines[0]
    assert len(run_log.list_unsynced(run_logs(home))) == 2
    shutil.rmtree(home / "data" / "tokenizer")  # the next run's outputs will be others

    mlflow_server.start()
    client = mlflow_store.connect(home)
    monkeypatch.setenv("IRGEN_BUILD", "second-build")
    workspace = Workspace.at(home)
    with record_stage("tokenizer", params, workspace, home) as record:
        record.log({"loss": 1.0}, 1)
        wait_for(lambda: len(runs(client)[1]) == 3)  # the two of before, and this one, live
        mlflow_server.kill()
        record.log({"loss": 0.5}, 2)
        write_outputs(workspace.stage("tokenizer"))
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1 and "the run goes on" in lines[0]

    mlflow_server.start()
    assert sync.sync_all(home) == 1 and sync.sync_all(home) == 0
    parents, children = runs(client)
    assert (len(parents), len(children)) == (2, 3)
    assert {run.info.status for run in parents + children} == {"FINISHED"}
    losses = sorted(len(history(client, run.info.run_id, "loss")) for run in children)
    assert losses == [2, 3, 3]
    for run in children:
        names = {file.path for file in client.list_artifacts(run.info.run_id)}
        assert names == LOGGED


@pytest.mark.slow
def test_a_full_disk_under_the_store_costs_a_warning_and_is_made_up_for(
    home: Path, params: Params, no_sync: None
) -> None:
    store = home / "mlruns"
    size = (store / "mlflow.db").stat().st_size
    (store / "mlflow.db").rename(home / "mlflow.db")
    with small_disk.mount(store, str(size + 8192)):
        shutil.copyfile(home / "mlflow.db", store / "mlflow.db")
        run_stage(home, params)  # the stage itself does its work
        with pytest.raises(TrackingError, match="full"):
            sync.sync_all(home)
        assert len(run_log.list_unsynced(run_logs(home))) == 1
        small_disk.resize(store, "64m")
        assert sync.sync_all(home) == 1
        assert len(runs(mlflow_store.connect(home))[1]) == 1
