"""What the flows remember: by that an update knows that nothing is due, and what has changed."""

from pathlib import Path

import polars as pl
import pytest

from flows import state, training_revision
from irgen.catalog import manifest


@pytest.fixture
def project(tmp_path: Path) -> Path:
    training_revision.write(tmp_path, 3)
    (tmp_path / "dvc.lock").write_text("schema: '2.0'\n")
    return tmp_path


def test_results_of_a_retrain_that_was_taken_back_are_not_those_that_are_due(project: Path) -> None:
    before = state.state_key(project)
    training_revision.begin(project, 8, new=40)
    retrained = state.state_key(project)
    assert training_revision.end(project, released=False)
    assert state.state_key(project) == before != retrained


def test_a_pipeline_without_a_training_revision_has_a_key_too(tmp_path: Path) -> None:
    before = state.state_key(tmp_path)
    (tmp_path / "dvc.lock").write_text("schema: '2.0'\n")
    assert state.state_key(tmp_path) != before


def write(root: Path, images: dict[str, str | None], revision: int) -> None:
    table = pl.DataFrame(
        [
            dict.fromkeys(manifest.SCHEMA.names()) | {"key": key, "sha256": sha}
            for key, sha in images.items()
        ],
        schema=manifest.SCHEMA,
    )
    folder = root / "data" / "download"
    folder.mkdir(parents=True, exist_ok=True)
    manifest.write(folder, table, revision=revision, source="s")


def test_new_changed_and_gone_are_counted_since_the_last_release(tmp_path: Path) -> None:
    write(tmp_path, {"a": "1", "b": "2", "c": "3", "absent": None}, 1)
    counted = state.count_changes(tmp_path)
    assert counted == {"images": 3, "new": 3, "changed": 0, "gone": 0, "revision": 1}
    state.remember_manifest(tmp_path)
    assert state.count_changes(tmp_path)["new"] == 0
    write(tmp_path, {"a": "1", "b": "9", "d": "4", "e": "5"}, 2)
    counted = {"images": 4, "new": 2, "changed": 1, "gone": 1, "revision": 2}
    assert state.count_changes(tmp_path) == state.count_changes(tmp_path) == counted
    state.remember_manifest(tmp_path)
    assert state.format_changes(state.count_changes(tmp_path)).startswith(
        "0 new, 0 changed, 0 gone; 4 images"
    )


def test_a_project_without_images_has_none(tmp_path: Path) -> None:
    state.remember_manifest(tmp_path)
    assert set(state.count_changes(tmp_path).values()) == {0}
