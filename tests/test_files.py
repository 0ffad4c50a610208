"""Files are written whole or not at all."""

import json
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from irgen.checkpoints import tensor_file
from irgen.errors import ArtifactError
from irgen.files import sealed
from irgen.files.atomic import atomic, delete_strays, write_bytes
from irgen.files.digests import digest, file_digest
from irgen.files.locks import mend_lock_file
from irgen.files.records import read_json, write_json, write_sealed_json
from irgen.files.sealed import (
    read_array,
    read_numbers,
    read_parquet,
    write_blocks,
    write_parquet,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def write_array(path: Path, values: np.ndarray) -> None:
    write_blocks(path, values.shape, values.dtype, [values])


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


WRITERS: dict[str, tuple[Callable[[Path, int], None], Callable[[Path], Any]]] = {
    "array": (lambda path, n: write_array(path, np.full((3, 2), n)), read_array),
    "table": (
        lambda path, n: write_parquet(path, pl.DataFrame({"id": ["a", "é"], "n": n}), {"r": "1"}),
        lambda path: read_parquet(path)["n"].to_numpy(),
    ),
    "record": (
        lambda path, n: write_sealed_json(path, {"n": n}),
        lambda path: read_json(path)["n"],
    ),
    "tensors": (
        lambda path, n: tensor_file.save(path, {"n": torch.full((3,), n)}, {"labels": ["é"]}),
        lambda path: tensor_file.load(path)[0]["n"].numpy(),
    ),
}


@pytest.mark.parametrize("error", [MemoryError, OSError(28, "No space left"), KeyboardInterrupt])
@pytest.mark.parametrize("kind", WRITERS)
def test_whatever_ends_a_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, error: BaseException
) -> None:
    (write, read), path = WRITERS[kind], tmp_path / "file"
    write(path, 1)

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(Path, "replace", fail)  # the last that a write does
    with pytest.raises((MemoryError, OSError, KeyboardInterrupt)):
        write(path, 2)
    assert np.all(read(path) == 1)
    assert list(tmp_path.iterdir()) == [path]


def test_what_killed_writers_left_is_deleted_once_it_is_old_enough(tmp_path: Path) -> None:
    kept, stray = tmp_path / "a" / "kept.json", tmp_path / "a" / ".kept.json.123.tmp"
    write_json(kept, 1)
    stray.write_text("half")
    (tmp_path / ".folder.123.tmp").mkdir()
    (tmp_path / ".folder.123.tmp" / "file").touch()
    delete_strays(tmp_path, 3600)
    assert stray.exists()
    delete_strays(tmp_path)
    assert sorted(tmp_path.rglob("*")) == [kept.parent, kept]
    delete_strays(tmp_path / "missing")


@pytest.mark.parametrize("kind", WRITERS)
def test_a_flipped_bit_in_a_sealed_file_is_noticed_or_changes_nothing(
    tmp_path: Path, kind: str
) -> None:
    (write, read), path, draw = WRITERS[kind], tmp_path / "file", random.Random(0)
    write(path, 7)
    whole, noticed = path.read_bytes(), 0
    write(path, 7)
    assert path.read_bytes() == whole, "equal values give equal files"
    for _ in range(200):
        content = bytearray(whole)
        content[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        path.write_bytes(content)
        try:
            assert np.all(read(path) == 7)
        except ArtifactError as error:
            assert str(path) in str(error) and "delete it and run" in str(error)
            noticed += 1
    assert noticed > 150


@pytest.mark.parametrize("shape", [(7, 5), (0, 3), (4,), (1, 2, 3)])
@pytest.mark.parametrize("size", [1, 3, 100])
def test_an_array_in_blocks_is_the_file_that_numpy_writes_and_a_seal(
    tmp_path: Path, shape: tuple[int, ...], size: int
) -> None:
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    blocks = (values[start : start + size] for start in range(0, len(values), size))
    write_blocks(tmp_path / "blocks.npy", shape, values.dtype, blocks)
    write_array(tmp_path / "whole.npy", values)
    with (tmp_path / "old.npy").open("wb") as file:
        np.save(file, values)
        file.write(sealed.UNSEALED.encode())
    sealed.seal(tmp_path / "old.npy")
    contents = {path.read_bytes() for path in tmp_path.iterdir()}
    assert len(contents) == 1 and (read_array(tmp_path / "blocks.npy") == values).all()


def test_blocks_that_are_not_the_array_or_fail_leave_no_half_of_a_file(tmp_path: Path) -> None:
    def fail() -> Iterator[np.ndarray]:
        yield np.zeros((2, 3))
        raise ZeroDivisionError

    few, wide = [np.zeros((2, 3))], [np.zeros((4, 2))]
    for blocks, error in (
        (few, AssertionError),
        (wide, AssertionError),
        (fail(), ZeroDivisionError),
    ):
        with pytest.raises(error):
            write_blocks(tmp_path / "array.npy", (4, 3), np.dtype(float), blocks)
        assert list(tmp_path.iterdir()) == []


def test_a_process_that_is_killed_between_blocks_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "array.npy"
    write_array(path, np.ones((2, 3)))
    program = (
        "import os, pathlib, signal, sys, numpy as np\n"
        "from irgen.files.sealed import write_blocks\n"
        "def blocks():\n"
        "    yield np.zeros((2, 3))\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_blocks(pathlib.Path(sys.argv[1]), (4, 3), np.dtype(float), blocks())\n"
    )
    ended = subprocess.run([sys.executable, "-c", program, path])
    assert ended.returncode == -signal.SIGKILL and (read_array(path) == 1).all()
    delete_strays(tmp_path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kind", WRITERS)
def test_a_file_without_a_seal_of_an_older_version_is_read(tmp_path: Path, kind: str) -> None:
    (write, read), path = WRITERS[kind], tmp_path / "file"
    with pytest.MonkeyPatch.context() as older:
        older.setattr(sealed, "seal", lambda path: None)
        older.setattr(sealed, "UNSEALED", "")
        older.setattr(tensor_file, "UNSEALED", "")
        write(path, 7)
    if kind == "array":
        path.write_bytes(path.read_bytes().partition(sealed.SEAL.encode())[0])
    assert np.all(read(path) == 7)


def test_a_table_of_numbers_that_has_others_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    path.write_text("method,step,loss,blank\nx,1,0.5,\nx,2,,\n")
    assert read_numbers(path, "method")["loss"].to_list() == [0.5, None]
    for text in ("method,step\nx,1\nx,2o\n", "method,step\nx,1,5,6\n", ""):
        path.write_text(text)
        with pytest.raises(ArtifactError, match=r"history.csv is damaged .*: delete it and run"):
            read_numbers(path, "method")


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
    sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert file_digest(tmp_path / "file") == sha256


def test_an_array_that_is_read_may_be_changed_and_its_file_stays(tmp_path: Path) -> None:
    write_array(tmp_path / "array.npy", np.arange(3))
    array = read_array(tmp_path / "array.npy")
    array[0] = 7
    assert array.tolist() == [7, 1, 2]
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


def test_a_safetensors_file_may_be_read_by_whom_any_new_file_may(tmp_path: Path) -> None:
    (tmp_path / "new").touch()
    tensor_file.save(tmp_path / "x.safetensors", {"x": torch.ones(2)}, {})
    assert (tmp_path / "x.safetensors").stat().st_mode == (tmp_path / "new").stat().st_mode
