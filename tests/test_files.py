"""Files are written whole or not at all."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from irgen.errors import ArtifactError
from irgen.files import (
    atomic,
    digest,
    file_digest,
    mend_lock_file,
    read_array,
    read_json,
    write_array,
    write_bytes,
    write_json,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def test_a_file_takes_its_place_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    with atomic(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert [each.name for each in path.parent.iterdir()] == ["file"]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), atomic(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_a_folder_replaces_a_folder_and_a_failed_one_leaves_it(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    for content in ("old", "new"):
        with atomic(path) as temporary:
            temporary.mkdir()
            (temporary / content).touch()
    assert [each.name for each in path.iterdir()] == ["new"]
    with pytest.raises(ZeroDivisionError), atomic(path) as temporary:
        temporary.mkdir()
        (temporary / "half").touch()
        raise ZeroDivisionError
    assert [each.name for each in path.iterdir()] == ["new"]
    assert [each.name for each in tmp_path.iterdir()] == ["folder"]


@given(value=JSON)
def test_json_comes_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    path = tmp_path_factory.mktemp("json") / "value.json"
    write_json(path, value)
    assert read_json(path) == value


def test_missing_and_damaged_json_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is missing"):
        read_json(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ArtifactError, match="not valid JSON"):
        read_json(tmp_path / "bad.json")


@given(st.dictionaries(st.text(), JSON))
def test_a_digest_depends_on_values_not_on_their_order(value: dict) -> None:
    shuffled = dict(reversed(value.items()))
    assert digest(value) == digest(shuffled) == digest(json.loads(json.dumps(value)))
    assert digest(value) != digest(value, value)


def test_a_files_digest_is_that_of_its_bytes(tmp_path: Path) -> None:
    write_bytes(tmp_path / "file", b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert file_digest(tmp_path / "file") == known


def test_an_array_that_is_read_may_be_changed_and_its_file_stays(tmp_path: Path) -> None:
    write_array(tmp_path / "array.npy", np.arange(3))
    found = read_array(tmp_path / "array.npy")
    found[0] = 7
    assert found.tolist() == [7, 1, 2]
    assert read_array(tmp_path / "array.npy").tolist() == [0, 1, 2]


LOCK = """\
schema: '2.0'
stages:
  first:
    cmd: python work.py first
    deps:
    - path: words.txt
      hash: md5
      md5: 0123456789abcdef0123456789abcdef
      size: 10
    outs:
    - path: data/first
      hash: md5
      md5: 0123456789abcdef0123456789abcdef
      size: 17
"""


def test_a_lock_file_that_is_whole_is_kept_and_stays(tmp_path: Path) -> None:
    path, copy = tmp_path / "dvc.lock", tmp_path / "copy"
    assert not mend_lock_file(path, copy) and not path.exists()
    path.write_text(LOCK)
    assert not mend_lock_file(path, copy)
    assert path.read_text() == copy.read_text() == LOCK


@pytest.mark.parametrize("length", [0, 3, 14, 22, 33, 60, 140, len(LOCK) - 3])
def test_a_lock_file_that_is_cut_off_is_put_back(tmp_path: Path, length: int) -> None:
    path, copy = tmp_path / "dvc.lock", tmp_path / "copy"
    path.write_text(LOCK[:length])
    assert mend_lock_file(path, copy) and not path.exists()  # there was none before
    copy.write_text(LOCK)
    path.write_text(LOCK[:length])
    assert mend_lock_file(path, copy) and path.read_text() == LOCK


def test_a_lock_file_in_a_conflict_is_left_to_its_user(tmp_path: Path) -> None:
    path, copy = tmp_path / "dvc.lock", tmp_path / "copy"
    copy.write_text(LOCK)
    text = f"<<<<<<< HEAD\n{LOCK}=======\n>>>>>>> theirs\n"
    path.write_text(text)
    assert not mend_lock_file(path, copy) and path.read_text() == text
