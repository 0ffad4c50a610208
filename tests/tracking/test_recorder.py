"""Builds and stages as runs in the store: names, states, metrics and results."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from irgen.errors import SourceError, TrackingError
from irgen.files.workspace import Workspace
from irgen.params import Params
from irgen.tracking import (
    descriptions,
    mlflow_store,
    outcomes,
    provenance,
    run_log,
    sync,
)
from irgen.tracking.locations import run_logs
from irgen.tracking.recorder import Recorder, record_stage

from ..waiting import wait_until
from .conftest import LOGGED, history, run_stage, runs, runs_in


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
    names = {file.path for file in client.list_artifacts(trained.info.run_id)}
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
        wait_until(lambda: runs(mlflow_store.connect(home))[1])
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
    assert [path.name for path in kept.iterdir()] == ["small.json"]  # the other one is too large
    assert sync.sync_all(home) == 1
    client = mlflow_store.connect(home)
    run = runs(client)[1][0].info.run_id
    assert client.download_artifacts(run, "small.json", str(home))
    assert (home / "small.json").read_text() == '{"a": 1}'
    assert not kept.exists()


def test_the_build_s_run_says_which_stages_ran_and_where_the_results_of_the_others_are(
    home: Path, params: Params, no_sync: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_stage(home, params)
    monkeypatch.setattr(provenance, "hash_lock_entry", provenance.hash_stage)  # as if DVC ran it
    (home / "data" / "evaluate").mkdir()
    (home / "data" / "evaluate" / "metrics.json").write_text('{"index": {"precision/10": 0.5}}')
    results = {"tokenizer": "skipped", "evaluate": "restored", "trie": "ran"}
    path = outcomes.log_outcomes(home, params, "second", results)
    assert sync.sync_all(home) == 2 and sync.sync_all(home) == 0
    client = mlflow_store.connect(home)
    builds, (stage,) = runs(client)
    (build,) = [run for run in builds if run.info.run_id == run_log.read_state(path)["run"]]
    tags = build.data.tags
    assert {name: tags[f"irgen.outcome.{name}"] for name in results} == results
    assert tags["irgen.results.tokenizer"] == stage.info.run_id
    assert "irgen.results.evaluate" not in tags and build.info.status == "FINISHED"
    assert build.data.metrics == {"index/precision_at_10": 0.5}
    outcomes.log_outcomes(home, params, "third", {"tokenizer": "failed"})
    assert sync.sync_all(home) == 1
    failed = runs_in(client, "digits")[0]
    assert failed.data.tags["irgen.parent_of"] == "third" and failed.info.status == "FAILED"
    with pytest.raises(TrackingError, match="'lost' is no outcome"):
        outcomes.log_outcomes(home, params, "second", {"trie": "lost"})
