"""A project with an MLflow store of its own, and stages recorded in it."""

import dataclasses
import shutil
import subprocess
from pathlib import Path

import polars as pl
import pytest
from mlflow import MlflowClient

from irgen.files.workspace import Workspace
from irgen.params import Params, load
from irgen.tracking import recorder
from irgen.tracking.recorder import record_stage

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
    """Return a project with a catalogue and an empty store of its own."""
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


def write_outputs(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "small.json").write_text('{"a": 1}')
    (folder / "large.csv").write_bytes(bytes(1_500_000))
    (folder / "images.tar").write_bytes(b"the bytes of an image")


def runs(client: MlflowClient) -> tuple[list, list]:
    """Return the runs of the builds, and those of their stages."""
    return runs_in(client, "digits"), runs_in(client, "digits/stages")


def runs_in(client: MlflowClient, name: str) -> list:
    experiment = client.get_experiment_by_name(name)
    return list(client.search_runs([experiment.experiment_id])) if experiment else []


def history(client: MlflowClient, run: str, key: str) -> list[tuple[int, float]]:
    return [(metric.step, metric.value) for metric in client.get_metric_history(run, key)]
