"""A grid of parameters as DVC experiments, in a copy of a toy project."""

import json
import subprocess
import sys

import pytest

from flows.compare import compare
from irgen.errors import ParamsError

from .conftest import PrefectServer, Toy

pytestmark = pytest.mark.slow

METRICS = """
import json, os, pathlib, sys, yaml
value = yaml.safe_load(open("params.yaml"))["toy"]["right"]
if value == 13:
    sys.exit("irgen measure: thirteen will not do")
folder = pathlib.Path("data/evaluate")
folder.mkdir(parents=True, exist_ok=True)
words = open("words.txt").read()
measured = {"method": {"precision/10": value / 10, "words": len(words)}}
(folder / "metrics.json").write_text(json.dumps(measured))
print("comparison", os.environ["IRGEN_COMPARISON"] != "", os.environ["DVC_EXP_NAME"])
"""
OUTSIDE = """
import pathlib, sys
if "exps" in pathlib.Path().resolve().parts:
    sys.exit("every point is to have the data that are here")
pathlib.Path("data/outside").write_text("images")
"""
STAGE = """
  outside:
    cmd: python outside.py
    always_changed: true
    outs: [data/outside: {persist: true}]
  measure:
    cmd: python measure.py
    deps: [measure.py, words.txt, data/outside]
    params: [toy.right]
    metrics: [data/evaluate/metrics.json: {cache: false}]
"""


@pytest.fixture
def measured(toy: Toy) -> Toy:
    """The toy project with a metric that depends on a parameter, and a change not committed."""
    (toy.root / "measure.py").write_text(METRICS)
    (toy.root / "outside.py").write_text(OUTSIDE)
    (toy.root / "dvc.yaml").write_text(f"stages:{STAGE}")
    (toy.root / ".gitignore").write_text("data/*\n!data/evaluate/\n.cache\n")
    (toy.root / "data").mkdir()
    commit = ["git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "measure"]
    look = [sys.executable, "-m", "dvc", "repro", "-q", "outside"]
    for command in (["git", "add", "."], commit, look):
        subprocess.run(command, cwd=toy.root, check=True)
    (toy.root / "words.txt").write_text("not committed")
    return toy


def table(server: PrefectServer) -> list[dict]:
    asked = {"artifacts": {"key": {"any_": ["comparison"]}}, "sort": "CREATED_DESC"}
    return json.loads(server.ask("/artifacts/filter", asked)[0]["data"])


def test_each_point_is_an_experiment_and_the_project_stays_as_it_is(
    prefect_server: PrefectServer, measured: Toy
) -> None:
    before = (measured.root / "params.yaml").read_bytes()
    state = compare({"toy.right": [3, 13, 5]}, root=str(measured.root), return_state=True)
    assert state.is_failed() and "thirteen will not do" in state.message
    rows = table(prefect_server)
    assert [row["toy.right"] for row in rows] == [3, 13, 5]
    assert [row.get("method/precision/10") for row in rows] == [0.3, None, 0.5]
    assert (measured.root / "params.yaml").read_bytes() == before
    assert not (measured.root / "data" / "evaluate").exists()
    assert not list((measured.root / ".dvc" / "tmp" / "exps").glob("compare-*"))
    command = [sys.executable, "-m", "dvc", "exp", "list", "--name-only"]
    shown = subprocess.run(command, cwd=measured.root, capture_output=True, text=True, timeout=60)
    assert {rows[0]["experiment"], rows[2]["experiment"]} <= set(shown.stdout.split())


def test_a_misspelt_parameter_is_told_before_anything_runs(
    prefect_server: PrefectServer, measured: Toy
) -> None:
    with pytest.raises(ParamsError, match=r"did you mean 'toy\.right'"):
        compare({"toy.rigth": [1]}, root=str(measured.root))
