"""The project's own pipeline, on few images and with one epoch, from the first build to an update
that publishes new images, with a real Prefect server."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from flows import graph
from flows.build import build
from flows.update import update
from irgen.catalog.sources import list_digits

from .conftest import ROOT, PrefectServer, until

pytestmark = [pytest.mark.slow, pytest.mark.scenario]

TRAINING = {"pairs", "tokenizer", "retriever"}
SMALL = {
    "download": {"source": "images"},
    "tokenizer": {"levels": 2, "codebook": 8, "width": 16, "epochs": 1, "warmup_epochs": 0},
    "retriever": {"width": 16, "layers": 1, "heads": 2, "epochs": 1, "warmup_epochs": 0},
    "gate": {"margin": 1.0, "minimum": 0.0},
    "compute": {"threads": 1, "device": "cpu"},
}


@pytest.fixture
def living(
    tmp_path: Path,
    quiet_dvc: dict[str, str],
    empty_store: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """A copy of the project with 200 images in a folder, ten of them held back."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    root = tmp_path / "project"
    root.mkdir()
    shutil.copytree(ROOT / "irgen", root / "irgen", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", ".gitignore", ".dvcignore"):
        shutil.copyfile(ROOT / name, root / name)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    for section, values in SMALL.items():
        params[section] |= values
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    for place, entry in enumerate(list_digits().entries):
        if place < 210:
            path = root / ("images" if place < 200 else "later") / entry.key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(entry.read())
    (root / "mlruns").mkdir()
    shutil.copyfile(empty_store, root / "mlruns" / "mlflow.db")
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, cwd=root, check=True, timeout=60)
    return root


def last(server: PrefectServer, key: str) -> str:
    """What the latest artifact of a key holds."""
    asked = {"artifacts": {"key": {"any_": [key]}}, "sort": "CREATED_DESC"}
    return server.ask("/artifacts/filter", asked)[0]["data"]


def ran(server: PrefectServer) -> set[str]:
    return {row["stage"] for row in json.loads(last(server, "stages")) if row["outcome"] == "ran"}


def test_new_images_are_published_without_training(
    prefect_server: PrefectServer, living: Path
) -> None:
    state = build(str(living), return_state=True)
    assert state.name == "Released", state.message
    everything = set(graph.read(living))
    assert ran(prefect_server) == everything
    first = (living / "releases" / "champion").readlink()

    started = time.monotonic()
    assert update(str(living), return_state=True).name == "Unchanged"
    assert time.monotonic() - started < 15

    for path in (living / "later").rglob("*.png"):
        target = living / "images" / path.relative_to(living / "later")
        target.parent.mkdir(exist_ok=True)
        path.rename(target)
    state = update(str(living), return_state=True)
    assert state.name == "Released", state.message
    assert "10 new, 0 changed, 0 gone; 210 images at revision 2" in state.message
    assert ran(prefect_server) == everything - TRAINING
    assert (living / "releases" / "champion").readlink() != first
    assert "| metric | previous build | now | change |" in last(prefect_server, "metrics")
    until(lambda: "10 new" in last(prefect_server, "database"), 10, "no page tells of it")
