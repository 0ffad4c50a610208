"""What a finished pass stands at: by that an update knows that nothing is due."""

from pathlib import Path

import pytest

from flows import cutoff, finished


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "params.yaml").write_text("catalog: {training_revision: 3}\nseed: 0\n")
    (tmp_path / "dvc.lock").write_text("schema: '2.0'\n")
    return tmp_path


def test_results_of_a_retrain_that_was_taken_back_are_not_those_that_are_due(project: Path) -> None:
    before = finished.key(project)
    cutoff.begin(project, 8, new=40)
    retrained = finished.key(project)
    assert cutoff.end(project, released=False)
    assert finished.key(project) == before != retrained


def test_other_parameters_are_no_part_of_it(project: Path) -> None:
    before = finished.key(project)
    (project / "params.yaml").write_text("catalog: {training_revision: 3}\nseed: 1\n")
    assert finished.key(project) == before


@pytest.mark.parametrize("params", ["toy: {right: 1}\n", None])
def test_a_pipeline_without_a_cut_off_has_one_too(tmp_path: Path, params: str | None) -> None:
    if params is not None:
        (tmp_path / "params.yaml").write_text(params)
    before = finished.key(tmp_path)
    (tmp_path / "dvc.lock").write_text("schema: '2.0'\n")
    assert finished.key(tmp_path) != before
