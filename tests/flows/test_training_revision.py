"""The training revision: raised in its file, and taken back."""

from pathlib import Path

import pytest

from flows import training_revision
from irgen.errors import ParamsError
from irgen.params import load


@pytest.fixture
def project(tmp_path: Path) -> Path:
    training_revision.write(tmp_path, 3)
    return tmp_path


def test_the_revision_that_is_written_is_what_the_stages_read(tmp_path: Path, root: Path) -> None:
    assert training_revision.read(tmp_path) == 1  # the first, without a file
    (tmp_path / "params.yaml").write_text((root / "params.yaml").read_text())
    training_revision.write(tmp_path, 12)
    assert training_revision.read(tmp_path) == 12
    assert load(tmp_path / "params.yaml").catalog.training_revision == 12


def test_the_project_s_own_file_is_written_as_it_stands(tmp_path: Path, root: Path) -> None:
    training_revision.write(tmp_path, training_revision.read(root))
    assert (tmp_path / "training.yaml").read_text() == (root / "training.yaml").read_text()


@pytest.mark.parametrize("text", ["", "revision: new", "revison: 1", "revision: [1"])
def test_a_file_without_a_revision_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "training.yaml").write_text(text)
    with pytest.raises(ParamsError, match=r"training\.yaml"):
        training_revision.read(tmp_path)


def test_a_revision_in_two_files_is_refused(project: Path, root: Path) -> None:
    text = (root / "params.yaml").read_text()
    (project / "params.yaml").write_text(
        text.replace("catalog:\n", "catalog:\n  training_revision: 3\n")
    )
    with pytest.raises(ParamsError, match=r"training\.yaml sets it: delete this key"):
        load(project / "params.yaml")


def test_a_retrain_that_was_released_keeps_its_revision(project: Path) -> None:
    training_revision.begin(project, 8, new=40)
    assert (
        training_revision.read(project) == 8
        and training_revision.running_retrain(project) is not None
    )
    assert not training_revision.end(project, released=True)
    assert (
        training_revision.read(project) == 8 and training_revision.running_retrain(project) is None
    )


def test_one_that_was_turned_down_is_taken_back_and_not_soon_tried_again(project: Path) -> None:
    assert training_revision.find_objection(project, 8, 40) == ""
    training_revision.begin(project, 8, new=40)
    assert (
        training_revision.find_objection(project, 8, 40) == ""
    )  # it is under way: a killed one goes on
    assert training_revision.end(project, released=False)
    assert training_revision.read(project) == 3
    assert "rejected by the gate" in training_revision.find_objection(project, 8, 40)
    assert "there are 79" in training_revision.find_objection(project, 20, 79)
    assert training_revision.find_objection(project, 21, 80) == ""


def test_nothing_new_is_no_reason_to_train(project: Path) -> None:
    assert "covers revision 3" in training_revision.find_objection(project, 3, 0)


def test_without_a_retrain_there_is_nothing_to_end(project: Path) -> None:
    assert not training_revision.end(project, released=False)
    assert training_revision.read(project) == 3


def test_a_revision_that_somebody_moved_meanwhile_is_left_alone(project: Path) -> None:
    training_revision.begin(project, 8, new=40)
    training_revision.write(project, 5)
    assert not training_revision.end(project, released=False)
    assert training_revision.read(project) == 5


def test_one_that_fails_again_and_again_is_taken_back(project: Path) -> None:
    assert not training_revision.count_failure(project), "none is under way"
    training_revision.begin(project, 8, new=40)
    assert [
        training_revision.count_failure(project) for _ in range(training_revision.MOST_FAILURES)
    ] == [False, False, True]
    assert (
        training_revision.read(project) == 3 and training_revision.running_retrain(project) is None
    )
    assert "failed 3 times; the next is due at 80" in training_revision.find_objection(
        project, 8, 40
    )
    assert training_revision.find_objection(project, 21, 80) == ""
    assert training_revision.begin(project, 21, new=80).failures == 0
