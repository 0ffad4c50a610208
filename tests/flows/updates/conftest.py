"""A project with a source of images, and a gate that says what a test tells it to."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows import build as building
from flows import release
from flows.release import Decision
from irgen.files.digests import digest

from ..conftest import ROOT, PrefectServer, Toy

LIVING = """
stages:
  download:
    cmd: python -m irgen download
    always_changed: true
    outs:
      - data/download: {persist: true}
  index:
    cmd: python work.py index
    deps: [training.yaml, work.py, words.txt, data/download/manifest.parquet]
    outs: [data/index]
"""
WORK = """
import pathlib, yaml
with open(".ran", "a") as file:
    file.write("index\\n")
index = pathlib.Path("data/index")
index.mkdir(exist_ok=True)
trained = yaml.safe_load(open("training.yaml"))["revision"]
manifest = pathlib.Path("data/download/manifest.parquet").read_bytes()
(index / "models").write_text(f"trained on revision {trained}")
(index / "images").write_bytes(manifest)
"""


@pytest.fixture
def living(toy: Toy, png: Callable[[int], bytes], empty_store: Path) -> Toy:
    """Return a project with a source of images and an index that cannot be searched."""
    (toy.root / "dvc.yaml").write_text(LIVING)
    (toy.root / "work.py").write_text(WORK)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["download"]["source"] = "images"
    (toy.root / "params.yaml").write_text(yaml.safe_dump(params))
    shutil.copyfile(ROOT / "training.yaml", toy.root / "training.yaml")
    (toy.root / "mlruns").mkdir()
    shutil.copyfile(empty_store, toy.root / "mlruns" / "mlflow.db")
    for number in range(6):
        put(toy, f"a/{number}.png", png(number))
    return toy


def put(toy: Toy, key: str, content: bytes) -> None:
    path = toy.root / "images" / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Replace ``irgen release`` and ``irgen sync-runs``. ``passes`` (a function of the models'
    text) and ``settled`` set the decision; ``asked`` and ``synced`` record the calls."""
    said: dict[str, Any] = {
        "passes": lambda models: True,
        "settled": True,
        "asked": [],
        "synced": [],
    }
    served: dict[str, Any] = {"bundle": None, "version": 0}

    def run(root: Path, *, build: str, log: Any) -> Decision:
        index = root / "data" / "index"
        models = (index / "models").read_text()
        bundle = digest(models, (index / "images").read_bytes().hex())
        said["asked"].append(models)
        released = said["passes"](models)
        new = released and served["bundle"] != bundle
        if new:
            served.update(bundle=bundle, version=served["version"] + 1)
        about = {
            "version": served["version"] + (not released),
            "name": bundle[:8],
            "bundle": bundle,
            "revision": 1,
            "champion": served["version"] or None,
            "verdict": {"passed": released, "why": "because", "figures": {"queries": 3}},
            "settled": said["settled"],
            "errors": [] if said["settled"] else ["MLflow is down"],
        }
        return Decision(released=released, outcome=about)

    def run_sync(root: Path, build: str, log: Any, options: list[str]) -> tuple[str, ...]:
        said["synced"].append(options)
        return ()

    monkeypatch.setattr(release, "run", run)
    monkeypatch.setattr(building, "run_sync", run_sync)
    return said


def run_flow(flow: Callable[..., Any], toy: Toy) -> Any:
    """Run a flow in this process, and return its final state."""
    return flow(str(toy.root), return_state=True)


def run_name(server: PrefectServer, state: Any) -> str:
    """Return the name of the flow run that ended in a state."""
    return server.ask(f"/flow_runs/{state.state_details.flow_run_id}")["name"]


def read_events(server: PrefectServer, event: str, root: Path) -> list[dict[str, Any]]:
    """Return the payloads of this project's events of a name, latest first."""
    asked = {"filter": {"event": {"name": [event]}}, "limit": 50}
    return [
        sent["payload"]
        for sent in server.ask("/events/filter", asked)["events"]
        if sent["resource"].get("irgen.root") == str(root)
    ]
