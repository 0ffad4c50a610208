"""Which changes make a stage run again for a comparison, and which do not."""

import dataclasses
from pathlib import Path

import pytest
import yaml

from irgen.params import Params, load
from irgen.study import reuse
from irgen.study.reuse import Place, key

PIPELINE = {
    "stages": {
        "pairs": {
            "cmd": "python -m irgen pairs",
            "params": ["pairs.rule", "seed"],
            "deps": ["data/features/train", "irgen/models/pairs.py"],
            "outs": ["data/pairs"],
        }
    }
}
BEFORE = {"catalog": "1", "features": "2"}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with one stage that depends on one file of code."""
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump(PIPELINE))
    (tmp_path / "irgen" / "models").mkdir(parents=True)
    (tmp_path / "irgen" / "models" / "pairs.py").write_text("RULES = {}\n")
    (tmp_path / "irgen" / "other.py").write_text("")
    return tmp_path


@pytest.fixture
def params(root: Path) -> Params:
    return load(root / "params.yaml")


def test_what_a_stage_does_not_depend_on_does_not_change_its_key(
    project: Path, params: Params
) -> None:
    first = key(project, "pairs", params, BEFORE)
    (project / "irgen" / "other.py").write_text("changed = True\n")
    others = dataclasses.replace(
        params, pairs=dataclasses.replace(params.pairs, neighbours=params.pairs.neighbours + 1)
    )
    assert key(project, "pairs", others, BEFORE | {"catalog": "9"}) == first


def test_code_parameters_and_stages_before_it_change_its_key(project: Path, params: Params) -> None:
    keys = [key(project, "pairs", params, BEFORE)]
    keys.append(key(project, "pairs", params, BEFORE | {"features": "3"}))
    keys.append(key(project, "pairs", dataclasses.replace(params, seed=5), BEFORE))
    keys.append(key(project, "pairs", params, {"catalog": "1"}))
    (project / "irgen" / "models" / "pairs.py").write_text("RULES = {'near': None}\n")
    keys.append(key(project, "pairs", params, BEFORE))
    assert len(set(keys)) == len(keys)


def test_a_stage_that_is_not_declared_depends_on_everything(project: Path, params: Params) -> None:
    keys = [key(project, "baselines", params, BEFORE)]
    keys.append(key(project, "baselines", dataclasses.replace(params, seed=5), BEFORE))
    keys.append(key(project, "baselines", params, BEFORE | {"catalog": "9"}))
    (project / "irgen" / "other.py").write_text("changed = True\n")
    keys.append(key(project, "baselines", params, BEFORE))
    assert len(set(keys)) == len(keys)


class Stage:
    """A stage that writes a file, and counts its runs."""

    runs = 0

    def __init__(self, fails: bool = False) -> None:
        self.fails = fails

    def run(self, params: Params, workspace: reuse.Workspace, log: object) -> None:
        Stage.runs += 1
        workspace.stage("pairs").mkdir(parents=True, exist_ok=True)
        (workspace.stage("pairs") / "pairs.txt").write_text(f"seed {params.seed}")
        if self.fails:
            raise RuntimeError("half way")


def test_results_are_shared_whole_or_not_at_all(
    project: Path, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    def bring(point: str, seed: int, *, fails: bool = False) -> str:
        monkeypatch.setattr(reuse, "import_module", lambda name: Stage(fails))
        place = Place(
            root=project, cache=project / "c", folder=project / point, encodings=project / "e"
        )
        own = dataclasses.replace(params, seed=seed)
        reuse.brought(place, "pairs", own, BEFORE, told.append)
        return (project / point / "data" / "pairs" / "pairs.txt").read_text()

    with pytest.raises(RuntimeError):
        bring("a", 0, fails=True)
    assert not list((project / "c").glob("*")), "what failed is not kept"
    assert bring("a", 0) == bring("b", 0) == "seed 0"
    assert Stage.runs == 2 and len(told) == 1, "the second point took what the first had made"
    assert bring("b", 1) == "seed 1"
    assert (project / "a" / "data" / "pairs" / "pairs.txt").read_text() == "seed 0"
