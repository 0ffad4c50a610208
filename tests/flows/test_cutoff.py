"""The training cut-off: moved in the text of params.yaml, and back."""

from pathlib import Path

import pytest
import yaml

from flows import cutoff
from irgen.errors import ParamsError
from irgen.study.plan import load_plan, settings_file

BLOCK = """seed: 0

catalog: # roles
  format: auto # a: b
  # training_revision: 9

  training_revision: 3 # images seen later join the database
encoder:
  crop: 1.0
"""
FLOW = "catalog: {format: auto, training_revision: 3, database: [train]}\nseed: 0\n"
ELSEWHERE = "catalog: {format: auto}\nother:\n  training_revision: 1\n"


@pytest.fixture(params=[BLOCK, FLOW], ids=["block", "flow"])
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    (tmp_path / "params.yaml").write_text(request.param)
    return tmp_path


def test_the_number_is_moved_and_nothing_else(project: Path) -> None:
    before = (project / "params.yaml").read_text()
    assert cutoff.read(project) == 3
    cutoff.move(project, 12)
    after = (project / "params.yaml").read_text()
    assert yaml.safe_load(after)["catalog"]["training_revision"] == 12
    assert after == before.replace("training_revision: 3", "training_revision: 12")


def test_it_is_found_in_the_project_s_own_settings(root: Path) -> None:
    sets = [settings_file(root, name) for name in load_plan(root).sets]
    for path in [root / "params.yaml", *sets]:
        found = cutoff._find(path.read_text())
        assert int(found[2]) == yaml.safe_load(path.read_text())["catalog"]["training_revision"]


@pytest.mark.parametrize("text", ["seed: 1\n", ELSEWHERE])
def test_no_cut_off_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(ParamsError, match="catalog: training_revision"):
        cutoff.read(tmp_path)


def test_a_retrain_that_was_released_keeps_its_cut_off(project: Path) -> None:
    cutoff.begin(project, 8, new=40)
    assert cutoff.read(project) == 8 and cutoff.underway(project) is not None
    assert not cutoff.end(project, released=True)
    assert cutoff.read(project) == 8 and cutoff.underway(project) is None


def test_one_that_was_turned_down_is_taken_back_and_not_soon_tried_again(project: Path) -> None:
    assert cutoff.objection(project, 8, 40) == ""
    cutoff.begin(project, 8, new=40)
    assert cutoff.objection(project, 8, 40) == ""  # it is under way: a killed one goes on
    assert cutoff.end(project, released=False)
    assert cutoff.read(project) == 3
    assert "turned down" in cutoff.objection(project, 8, 40)
    assert "there are 79" in cutoff.objection(project, 20, 79)
    assert cutoff.objection(project, 21, 80) == ""


def test_nothing_new_is_no_reason_to_train(project: Path) -> None:
    assert "covers revision 3" in cutoff.objection(project, 3, 0)


def test_without_a_retrain_there_is_nothing_to_end(project: Path) -> None:
    assert not cutoff.end(project, released=False)
    assert cutoff.read(project) == 3


def test_a_cut_off_that_somebody_moved_meanwhile_is_left_alone(project: Path) -> None:
    cutoff.begin(project, 8, new=40)
    cutoff.move(project, 5)
    assert not cutoff.end(project, released=False)
    assert cutoff.read(project) == 5


def test_one_that_fails_again_and_again_is_taken_back(project: Path) -> None:
    assert not cutoff.failed(project), "none is under way"
    cutoff.begin(project, 8, new=40)
    assert [cutoff.failed(project) for _ in range(cutoff.FAILURES)] == [False, False, True]
    assert cutoff.read(project) == 3 and cutoff.underway(project) is None
    assert "failed 3 times; the next is due at 80" in cutoff.objection(project, 8, 40)
    assert cutoff.objection(project, 21, 80) == ""
    assert cutoff.begin(project, 21, new=80).failures == 0
