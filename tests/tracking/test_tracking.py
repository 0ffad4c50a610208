"""Nothing tracked is lost, nothing is logged twice, and a dead server stops no run."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner
from mlflow import MlflowClient

from irgen.commands.ui import ui
from irgen.errors import SourceError, TrackingError
from irgen.files.workspace import Workspace
from irgen.params import Params, load
from irgen.tracking import (
    descriptions,
    mlflow_store,
    outcomes,
    provenance,
    recorder,
    run_log,
    sync,
)
from irgen.tracking.locations import run_logs
from irgen.tracking.recorder import Recorder, record_stage

DVC_YAML = """
stages:
  download:
    cmd: python -m irgen download
    always_changed: true
  catalog:
    cmd: python -m irgen catalog
    outs: [data/catalog/train.parquet]
  tokenizer:
    cmd: python -m irgen tokenizer
    deps: [data/catalog/train.parquet]
    params: [seed, tokenizer]
    outs: [data/tokenizer]
  evaluate:
    cmd: python -m irgen evaluate
"""


LOGGED = {"small.json", "large.csv.pointer.json", "images.tar.pointer.json"}


@pytest.fixture
def params(root: Path) -> Params:
    params = load(root / "params.yaml")
    return dataclasses.replace(
        params, tracking=dataclasses.replace(params.tracking, max_artifact_megabytes=1)
    )


@pytest.fixture
def home(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a catalogue and an empty store of its own."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("IRGEN_BUILD", "test-build")
    monkeypatch.setattr(recorder, "LINGER_SECONDS", 1.0)
    home = tmp_path / "project"
    (home / "mlruns").mkdir(parents=True)
    shutil.copyfile(empty_store, home / "mlruns" / "mlflow.db")
    (home / "dvc.yaml").write_text(DVC_YAML)
    (home / "data" / "catalog").mkdir(parents=True)
    rows = {"id": ["a", "b"], "label": ["x", "y"], "role": ["train"] * 2, "sha256": ["1", "2"]}
    pl.DataFrame(rows).write_parquet(home / "data" / "catalog" / "train.parquet")
    return home


@pytest.fixture
def no_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave run logs to be synced later, which saves the start of a process."""
    monkeypatch.setattr(recorder, "start_sync_process", lambda _: subprocess.Popen(["false"]))


def run_stage(home: Path, params: Params, stage: str = "tokenizer", rounds: int = 3) -> None:
    workspace = Workspace.at(home)
    with record_stage(stage, params, workspace, home) as record:
        for step in range(1, rounds + 1):
            record.log({"loss": 1 / step, "accuracy/prefix_1": step / 10}, step)
        write_outputs(workspace.stage(stage))
        record.log_result({"accuracy": 0.9})


def write_outputs(place: Path) -> None:
    place.mkdir(parents=True, exist_ok=True)
    (place / "small.json").write_text('{"a": 1}')
    (place / "large.csv").write_bytes(bytes(1_500_000))
    (place / "images.tar").write_bytes(b"the bytes of an image")


def runs(client: MlflowClient) -> tuple[list, list]:
    """The runs of the builds, and those of their stages, in the store."""
    return runs_in(client, "digits"), runs_in(client, "digits/stages")


def runs_in(client: MlflowClient, name: str) -> list:
    experiment = client.get_experiment_by_name(name)
    return list(client.search_runs([experiment.experiment_id])) if experiment else []


def history(client: MlflowClient, run: str, key: str) -> list[tuple[int, float]]:
    return [(each.step, each.value) for each in client.get_metric_history(run, key)]


def test_two_stages_of_one_build_share_a_parent_in_the_projects_own_store(
    home: Path, params: Params
) -> None:
    run_stage(home, params)
    metrics = {"generative": {"precision/10": 0.95}, "queries": {"count": 7}}
    (home / "data" / "evaluate").mkdir()
    (home / "data" / "evaluate" / "metrics.json").write_text(json.dumps(metrics))
    run_stage(home, params, stage="evaluate", rounds=0)

    client = mlflow_store.connect(home)
    parents, children = runs(client)
    assert len(parents) == 1 and parents[0].info.status == "FINISHED"
    assert parents[0].data.metrics["generative/precision_at_10"] == 0.95
    assert parents[0].data.params["tokenizer.levels"] == str(params.tokenizer.levels)
    assert not [key for key in parents[0].data.params if key.startswith("baselines.")]
    assert {run.data.tags["irgen.stage"] for run in children} == {"tokenizer", "evaluate"}
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parents[0].info.run_id}
    trained = next(run for run in children if run.data.tags["irgen.stage"] == "tokenizer")
    assert trained.info.status == "FINISHED"
    assert history(client, trained.info.run_id, "loss") == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    assert trained.data.params.keys() >= {"seed", "tokenizer.steps"}
    assert "retriever.steps" not in trained.data.params
    assert len(trained.data.tags["dvc.stage_hash"]) == 64
    table = trained.inputs.dataset_inputs[0].dataset
    assert (table.name, json.loads(table.profile)["num_rows"]) == ("train", 2)
    assert table.digest == provenance.describe_tables(home, "tokenizer")[0]["digest"]
    names = {each.path for each in client.list_artifacts(trained.info.run_id)}
    assert names == LOGGED


STAGE = """
import sys
from pathlib import Path
from irgen.tracking import recorder
from irgen.params import load
from irgen.files.workspace import Workspace
recorder.LINGER_SECONDS = 3.0
stage, home = sys.argv[1], Path()
workspace = Workspace.at(home)
with recorder.record_stage(stage, load(Path("params.yaml")), workspace, home) as record:
    workspace.stage(stage).mkdir(parents=True, exist_ok=True)
    (workspace.stage(stage) / "file").write_text(stage)
    record.log_result({"size": 1.0})
"""


@pytest.mark.slow
def test_the_stages_of_one_dvc_repro_share_a_parent_and_carry_the_hash_of_their_lock_entry(
    home: Path, root: Path, quiet_dvc: dict[str, str]
) -> None:
    (home / "stage.py").write_text(STAGE)
    shutil.copyfile(root / "params.yaml", home / "params.yaml")
    stages = {
        "tokenizer": {"deps": ["stage.py"], "params": ["seed", "tokenizer"]},
        "trie": {"deps": ["data/tokenizer"]},
    }
    for name, entry in stages.items():
        entry |= {"cmd": f"{sys.executable} stage.py {name}", "outs": [f"data/{name}"]}
    (home / "dvc.yaml").write_text(json.dumps({"stages": stages}))
    environment = {**quiet_dvc, "PYTHONPATH": str(root)}
    environment.pop("IRGEN_BUILD", None)
    for command in (["init", "--no-scm", "-q"], ["repro", "-q"]):
        dvc = [sys.executable, "-m", "dvc", *command]
        subprocess.run(dvc, cwd=home, env=environment, timeout=120, check=True)
    parents, children = runs(mlflow_store.connect(home))
    assert (len(parents), len(children)) == (1, 2)
    for run in children:
        stage = run.data.tags["irgen.stage"]
        assert run.data.tags["dvc.stage_hash"] == provenance.hash_lock_entry(home, stage)


def test_a_stage_that_runs_always_makes_a_run_only_if_it_found_something_or_failed(
    home: Path, params: Params, no_sync: None
) -> None:
    with record_stage("download", params, Workspace.at(home), home) as record:
        record.log_result({})
    assert not list(run_logs(home).glob("**/*.jsonl"))
    with pytest.raises(SourceError), record_stage("download", params, Workspace.at(home), home):
        raise SourceError("no such folder")
    assert sync.sync_all(home) == 1
    (build,), (stage,) = runs(mlflow_store.connect(home))
    assert build.info.status == stage.info.status == "FAILED"
    note = build.data.tags["mlflow.note.content"]
    assert "**Failed** in download: SourceError: no such folder" in note


@pytest.mark.parametrize("killed", [False, True])
def test_a_build_is_running_until_the_process_above_its_stages_ends(
    home: Path, params: Params, no_sync: None, monkeypatch: pytest.MonkeyPatch, killed: bool
) -> None:
    flow = subprocess.Popen(["sleep", "600"])
    monkeypatch.setenv(provenance.CONDUCTED, str(flow.pid))
    client = mlflow_store.connect(home)
    run_stage(home, params)
    assert sync.sync_all(home) == 1 and sync.sync_all(home) == 0
    (build,), (stage,) = runs(client)
    assert (build.info.status, stage.info.status) == ("RUNNING", "FINISHED")
    if killed:  # then DVC leaves its list of files in use
        (home / ".dvc" / "tmp").mkdir(parents=True)
        user = {"pid": flow.pid, "cmd": "dvc repro"}
        in_use = {"read": {"a": [user]}, "write": {"b": user}}
        (home / ".dvc" / "tmp" / "rwlock").write_text(json.dumps(in_use))
    flow.kill()
    flow.wait()
    assert sync.sync_all(home) == 1 and sync.sync_all(home) == 0
    (build,), (stage,) = runs(client)
    expected = "KILLED" if killed else "FINISHED"
    assert (build.info.status, stage.info.status) == (expected, "FINISHED")
    assert build.info.end_time == stage.info.end_time


def test_a_running_stage_is_seen_before_its_first_metric(home: Path, params: Params) -> None:
    workspace = Workspace.at(home)
    with record_stage("tokenizer", params, workspace, home):
        wait_for(lambda: runs(mlflow_store.connect(home))[1])
        (build,), (stage,) = runs(mlflow_store.connect(home))
        assert (build.info.status, stage.info.status) == ("RUNNING", "RUNNING")
    (build,), (stage,) = runs(mlflow_store.connect(home))
    assert (build.info.status, stage.info.status) == ("FINISHED", "FINISHED")


def test_the_run_of_a_build_has_a_name_a_description_its_curves_and_the_report(
    home: Path, params: Params, no_sync: None
) -> None:
    shutil.copyfile(
        home / "data" / "catalog" / "train.parquet", home / "data" / "catalog" / "database.parquet"
    )
    rows = {"id": ["c"], "label": ["x"], "role": ["query"], "sha256": ["3"]}
    pl.DataFrame(rows).write_parquet(home / "data" / "catalog" / "queries.parquet")
    (home / "data" / "evaluate").mkdir()
    metrics = {"index": {"precision/1": 0.9, "precision/10": 0.5, "recall/10": 0.1}}
    (home / "data" / "evaluate" / "metrics.json").write_text(json.dumps(metrics))
    run_stage(home, params)
    with record_stage("report", params, Workspace.at(home), home):
        (home / "reports").mkdir()
        (home / "reports" / "index.html").write_text("<html>")
    assert sync.sync_all(home) == 2
    client = mlflow_store.connect(home)
    (build,), _ = runs(client)
    started = descriptions.format_time(build.info.start_time)
    assert build.info.run_name == f"digits · 3 images · {started}"
    assert build.data.metrics == {"index/precision_at_10": 0.5, "tokenizer/loss": 1 / 3}
    assert history(client, build.info.run_id, "tokenizer/loss")[0] == (1, 1.0)
    note = build.data.tags["mlflow.note.content"]
    assert "3 images with 2 labels; 2 can be found, 1 measure the quality" in note
    assert "of the first 10 results 50 % are right" in note
    assert "Stages: [tokenizer](#/experiments/" in note
    (report,) = client.list_artifacts(build.info.run_id, "reports")
    assert report.path == "reports/index.html"


def test_a_failure_is_recorded_with_its_error_and_fails_the_build(
    home: Path, params: Params, no_sync: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush-hush-hush")
    workspace = Workspace.at(home)
    with (
        pytest.raises(ZeroDivisionError),
        record_stage("tokenizer", params, workspace, home) as record,
    ):
        record.log({"loss": 1.0}, 1)
        raise ZeroDivisionError("s3://me:hush@bucket hush-hush-hush")
    assert sync.sync_all(home) == 1
    parents, children = runs(mlflow_store.connect(home))
    assert parents[0].info.status == children[0].info.status == "FAILED"
    assert children[0].data.tags["irgen.error"] == "ZeroDivisionError: s3://***@bucket ***"
    assert "hush" not in next(run_logs(home).glob("*/*.jsonl")).read_text()


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


def test_a_conducted_stage_waits_for_no_sync_and_what_it_leaves_may_be_changed(
    home: Path, params: Params, no_sync: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def waited(_: Recorder) -> bool:
        raise AssertionError("it waits")

    monkeypatch.setattr(Recorder, "_wait_for_sync", waited)
    monkeypatch.setenv(provenance.CONDUCTED, str(os.getpid()))
    run_stage(home, params)
    (home / "data" / "tokenizer" / "small.json").write_text('{"a": 2}')
    path = next(run_logs(home).glob("*/*.jsonl"))
    kept = run_log.copies_folder(path)
    assert [each.name for each in kept.iterdir()] == ["small.json"]  # the other one is too large
    assert sync.sync_all(home) == 1
    client = mlflow_store.connect(home)
    run = runs(client)[1][0].info.run_id
    assert client.download_artifacts(run, "small.json", str(home))
    assert (home / "small.json").read_text() == '{"a": 1}'
    assert not kept.exists()


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
    told = capfd.readouterr().err.splitlines()
    assert len(told) == 1 and "Connection refused; the run goes on" in told[0]
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
    told = capfd.readouterr().err.splitlines()
    assert len(told) == 1 and "the run goes on" in told[0]

    mlflow_server.start()
    assert sync.sync_all(home) == 1 and sync.sync_all(home) == 0
    parents, children = runs(client)
    assert (len(parents), len(children)) == (2, 3)
    assert {run.info.status for run in parents + children} == {"FINISHED"}
    losses = sorted(len(history(client, run.info.run_id, "loss")) for run in children)
    assert losses == [2, 3, 3]
    for run in children:
        names = {each.path for each in client.list_artifacts(run.info.run_id)}
        assert names == LOGGED


def test_a_run_s_page_is_where_a_browser_finds_it(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert mlflow_store.run_page(home, "1", "ab") is None
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:secret@mlflow.example/")
    address = "mlflow.example/#/experiments/1/runs/ab?workflowType=machine_learning"
    assert mlflow_store.run_page(home, "1", "ab") == f"https://***@{address}"
    monkeypatch.setenv("IRGEN_MLFLOW_PAGES", "https://pages.example/mlflow/")
    page = mlflow_store.run_page(home, "1", "ab")
    assert page == f"https://pages.example/mlflow/{mlflow_store.run_link('1', 'ab')}"


def test_irgen_ui_names_the_page_for_training_of_the_server_that_tracks_the_runs(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.example")
    result = CliRunner().invoke(ui, ["--root", str(home)])
    page = "http://mlflow.example/#/experiments?workflowType=machine_learning"
    assert result.output == f"Runs are tracked at {page}\n"


def wait_for(condition, seconds: float = 30) -> None:
    import time

    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.2)


def test_synced_run_logs_are_deleted_in_time(home: Path) -> None:
    folder = run_logs(home)
    for build, done in (("old", True), ("new", True), ("waiting", False)):
        log = run_log.create(folder, build, "catalog")
        log.append("begin")
        log.lock.release()
        run_log.write_state(log.path, done=done)
        if build != "new":
            for path in log.path.parent.iterdir():
                os.utime(path, (0, 0))
    run_log.delete_synced(folder, days=14)
    assert sorted(path.name for path in folder.iterdir()) == ["new", "waiting"]


def test_a_run_log_has_a_writer_until_its_lock_is_free(tmp_path: Path) -> None:
    first = run_log.create(tmp_path, "build 1", "trie")
    second = run_log.create(tmp_path, "build 1", "trie")
    assert [log.path.name for log in (first, second)] == ["trie.jsonl", "trie-2.jsonl"]
    assert first.path.parent == tmp_path / "build-1"
    assert run_log.has_writer(first.path) and run_log.is_open(first.path)
    first.append("end", status="FINISHED")
    assert run_log.has_writer(first.path) and not run_log.is_open(first.path)
    first.lock.release()
    assert not run_log.has_writer(first.path)
    second.delete()
    assert run_log.read(first.path)[0]["status"] == "FINISHED"
    assert not run_log.has_writer(second.path) and not second.path.exists()


def test_a_library_of_the_store_s_that_does_not_load_is_an_error_of_tracking(
    home: Path, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(name: str) -> None:
        raise ImportError(f"{name} does not fit")

    monkeypatch.setattr(mlflow_store, "import_module", broken)
    with pytest.raises(TrackingError, match="mlflow does not fit"):
        mlflow_store.connect(home)


def test_the_build_s_run_says_which_stages_ran_and_where_the_results_of_the_others_are(
    home: Path, params: Params, no_sync: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_stage(home, params)
    monkeypatch.setattr(provenance, "hash_lock_entry", provenance.hash_stage)  # as if DVC ran it
    (home / "data" / "evaluate").mkdir()
    (home / "data" / "evaluate" / "metrics.json").write_text('{"index": {"precision/10": 0.5}}')
    told = {"tokenizer": "skipped", "evaluate": "restored", "trie": "ran"}
    path = outcomes.log_outcomes(home, params, "second", told)
    assert sync.sync_all(home) == 2 and sync.sync_all(home) == 0
    client = mlflow_store.connect(home)
    builds, (stage,) = runs(client)
    (build,) = [run for run in builds if run.info.run_id == run_log.read_state(path)["run"]]
    tags = build.data.tags
    assert {name: tags[f"irgen.outcome.{name}"] for name in told} == told
    assert tags["irgen.results.tokenizer"] == stage.info.run_id
    assert "irgen.results.evaluate" not in tags and build.info.status == "FINISHED"
    assert build.data.metrics == {"index/precision_at_10": 0.5}
    outcomes.log_outcomes(home, params, "third", {"tokenizer": "failed"})
    assert sync.sync_all(home) == 1
    failed = runs_in(client, "digits")[0]
    assert failed.data.tags["irgen.parent_of"] == "third" and failed.info.status == "FAILED"
    with pytest.raises(TrackingError, match="'lost' is no outcome"):
        outcomes.log_outcomes(home, params, "second", {"trie": "lost"})


@pytest.mark.slow
def test_a_full_disk_under_the_store_costs_a_warning_and_is_made_up_for(
    home: Path, params: Params, no_sync: None
) -> None:
    store = home / "mlruns"
    size = (store / "mlflow.db").stat().st_size
    (store / "mlflow.db").rename(home / "mlflow.db")
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size + 8192}", "tmpfs", str(store)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a full disk is tried on a mounted one, and mounting is not allowed here")
    try:
        shutil.copyfile(home / "mlflow.db", store / "mlflow.db")
        run_stage(home, params)  # the stage itself does its work
        with pytest.raises(TrackingError, match="full"):
            sync.sync_all(home)
        assert len(run_log.list_unsynced(run_logs(home))) == 1
        subprocess.run(["mount", "-o", "remount,size=64m", str(store)], check=True)
        assert sync.sync_all(home) == 1
        assert len(runs(mlflow_store.connect(home))[1]) == 1
    finally:
        subprocess.run(["umount", "--lazy", str(store)], check=True)
