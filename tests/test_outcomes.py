"""Stages that DVC skipped or restored are in their build's run, with what they came to."""

import argparse
import json
import shutil
from pathlib import Path

import polars as pl
import pytest
from mlflow import MlflowClient

from irgen import cli, outcomes
from irgen.catalog import manifest
from irgen.errors import TrackingError
from irgen.files import write_json
from irgen.params import Params, load
from irgen.tracking import mlflow_store, provenance, run_log, sync
from irgen.tracking.recorder import recorded
from irgen.workspace import Workspace

STAGES = {"tokenizer": ["seed", "tokenizer"], "evaluate": ["seed"], "drift": ["drift"]}


@pytest.fixture
def params(root: Path) -> Params:
    return load(root / "params.yaml")


@pytest.fixture
def home(tmp_path: Path, root: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project at data revision 3 whose stages ran once, in the build ``first``, but for drift,
    which has never run where this store could see it; and are all locked as they ran."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    from irgen.tracking import recorder

    monkeypatch.setattr(recorder, "HEAD_START", 60.0)
    monkeypatch.setattr(recorder, "start_publisher", lambda _: None)
    monkeypatch.setattr(recorder.Record, "_published", lambda _: True)
    home = tmp_path / "project"
    (home / "mlruns").mkdir(parents=True)
    shutil.copyfile(empty_store, home / "mlruns" / "mlflow.db")
    shutil.copyfile(root / "params.yaml", home / "params.yaml")
    declared = {
        name: {"cmd": f"python -m irgen {name}", "params": used, "outs": [f"data/{name}"]}
        for name, used in STAGES.items()
    }
    write_json(home / "dvc.yaml", {"stages": declared})
    write_json(home / "dvc.lock", {"stages": {name: locked(home, name) for name in STAGES}})
    stand_at(home, 3)
    measured(home, 0.9, drift=0.1)
    monkeypatch.setenv("IRGEN_BUILD", "first")
    for stage in ("tokenizer", "evaluate"):
        with recorded(stage, load(home / "params.yaml"), Workspace.at(home), home) as record:
            record.log({"loss": 1.0}, 1)
            record.log({"loss": 0.5}, 2)
            record.result({"accuracy": 0.8})
    assert sync.publish_all(home) == 2
    monkeypatch.setenv("IRGEN_BUILD", "second")
    return home


def locked(home: Path, stage: str) -> dict:
    """A stage's entry in dvc.lock."""
    from irgen.tracking.provenance import _at, _yaml

    values = _yaml(home / "params.yaml")
    return {
        "cmd": f"python -m irgen {stage}",
        "params": {"params.yaml": {key: _at(values, key) for key in STAGES[stage]}},
        "outs": [{"path": f"data/{stage}", "hash": "md5", "md5": f"{stage}.dir", "size": 5}],
    }


def stand_at(home: Path, revision: int) -> None:
    table = pl.DataFrame(schema=manifest.SCHEMA)
    manifest.write(home / "data" / "download", table, revision=revision, source="test")


def measured(home: Path, precision: float, *, drift: float) -> None:
    """What the stages evaluate and drift leave."""
    quality = {"index": {"precision/10": precision}, "generative": {"map/R": 0.5}}
    write_json(home / "data" / "evaluate" / "metrics.json", quality)
    write_json(home / "data" / "drift" / "metrics.json", {"residual/new": drift})


def build(client: MlflowClient, key: str):
    """A build's run, and its children by name."""
    within = client.get_experiment_by_name("irgen").experiment_id
    (parent,) = client.search_runs([within], f"tags.`irgen.parent_of` = '{key}'")
    inside = f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
    return parent, {run.info.run_name: run for run in client.search_runs([within], inside)}


def test_a_stage_that_was_skipped_links_to_the_run_that_made_its_results(home, params):
    stages = {"tokenizer": "skipped", "evaluate": "restored"}
    assert outcomes.complete_build(home, params, "second", stages) == ["tokenizer", "evaluate"]
    assert sync.publish_all(home) == 2
    client = mlflow_store.connect(home)
    first, ran = build(client, "first")
    second, linked = build(client, "second")
    assert linked.keys() == {"tokenizer.skipped", "evaluate.restored"}
    link, made = linked["tokenizer.skipped"], ran["tokenizer"]
    assert link.data.tags["irgen.link"] == made.info.run_id
    assert link.data.tags["irgen.outcome"] == "skipped"
    assert link.data.tags["dvc.stage_hash"] == made.data.tags["dvc.stage_hash"]
    assert link.data.metrics == made.data.metrics and link.data.params == made.data.params
    assert made.info.run_id in link.data.tags["mlflow.note.content"]
    assert second.info.status == link.info.status == "FINISHED"
    assert second.data.metrics == first.data.metrics and "index/precision/10" in first.data.metrics
    assert second.data.params == first.data.params
    assert second.data.tags["irgen.data_revision"] == "3"


def test_a_build_can_be_completed_again_and_says_what_is_served(home, params):
    (home / "releases").mkdir()
    (home / "releases" / "champion").symlink_to("0004-abcdef12")
    assert outcomes.complete_build(home, params, "second", {"tokenizer": "skipped"})
    assert sync.publish_all(home) == 1
    assert not outcomes.complete_build(home, params, "second", {"tokenizer": "skipped"})
    assert sync.publish_all(home) == 0
    parent, children = build(mlflow_store.connect(home), "second")
    assert len(children) == 1 and parent.data.tags["irgen.champion"] == "0004-abcdef12"


def test_a_stage_that_ran_in_the_build_is_not_skipped_by_a_later_attempt(home, params):
    assert not outcomes.complete_build(home, params, "first", {"tokenizer": "skipped"})
    assert not outcomes.complete_build(home, params, "second", {"tokenizer": "ran"})


def test_a_stage_of_which_the_store_has_no_run_tells_its_outputs(home, params):
    outcomes.complete_build(home, params, "second", {"drift": "restored"})
    sync.publish_all(home)
    client = mlflow_store.connect(home)
    run = build(client, "second")[1]["drift.restored"]
    assert "irgen.link" not in run.data.tags
    assert "the run that made them is not here" in run.data.tags["mlflow.note.content"]
    assert [each.path for each in client.list_artifacts(run.info.run_id)] == ["outs.json"]


def test_a_telling_that_was_killed_is_told_again(home, params):
    place = provenance.journals(home) / "second" / "tokenizer.skipped.jsonl"
    place.parent.mkdir()
    place.write_text(json.dumps({"kind": "begin", "time": 1}) + "\n")
    assert outcomes.complete_build(home, params, "second", {"tokenizer": "skipped"})
    assert run_log.records(place)[-1]["kind"] == "end"


def test_the_monitor_follows_drift_and_quality_over_the_revisions_of_the_data(home, params):
    def told(build_key: str, stage_outcome: str = "restored") -> None:
        outcomes.complete_build(home, params, build_key, {"drift": stage_outcome})
        sync.publish_all(home)

    told("second")
    told("third")  # the same again
    stand_at(home, 4)
    measured(home, 0.7, drift=0.4)
    told("fourth")
    client = mlflow_store.connect(home)
    within = client.get_experiment_by_name("irgen").experiment_id
    (monitor,) = client.search_runs([within], "tags.`irgen.monitor` = 'true'")

    def series(name: str) -> list[tuple[int, float]]:
        found = client.get_metric_history(monitor.info.run_id, name)
        return sorted((each.step, each.value) for each in found)

    assert series("drift/residual/new") == [(3, 0.1), (4, 0.4)]
    assert series("index/precision/10") == [(3, 0.9), (4, 0.7)]
    assert monitor.data.tags["irgen.data_revision"] == "4"
    assert "mlflow.parentRunId" not in monitor.data.tags


def test_the_command_line_completes_a_build(home, capsys):
    arguments = ["publish", "--build", "second", "--stages", "tokenizer=skipped,evaluate=ran"]
    assert cli.main([*arguments, "--root", str(home)]) == 0
    assert "Published 1 runs" in capsys.readouterr().out
    assert set(build(mlflow_store.connect(home), "second")[1]) == {"tokenizer.skipped"}


def test_what_is_no_outcome_is_refused(home, params, capsys):
    with pytest.raises(TrackingError, match="'jumped' is no outcome; allowed: ran, skipped, res"):
        outcomes.complete_build(home, params, "second", {"tokenizer": "jumped"})
    with pytest.raises(argparse.ArgumentTypeError, match="expected stage="):
        cli._outcomes("tokenizer")


def test_a_build_with_skipped_stages_does_not_say_that_they_ran(home, params, monkeypatch):
    outcomes.complete_build(home, params, "second", {"tokenizer": "skipped"})
    assert "Nothing had to be done" in cli.what_ran(home)
