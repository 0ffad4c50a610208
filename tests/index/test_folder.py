"""The folder of an index is written whole or not at all, and has one writer."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from irgen.errors import IndexingError
from irgen.index import damage
from irgen.index import folder as folders
from irgen.index.index import Index

from .conftest import NAMES, list_names


def test_a_new_index_holds_what_it_was_given(folder: Path, small: SimpleNamespace) -> None:
    with Index.open(folder) as index:
        assert small.contents(index) == small.expected(NAMES, trained=None)
        assert index.info()["config"] == {"made by": "a test"}
        index.verify()
    assert (folder / "models" / "weights").read_bytes() == b"weights"
    assert list_names(folder.parent) == ["index"]


def test_its_files_do_not_depend_on_the_order_of_the_images(
    folder: Path, tmp_path: Path, small: SimpleNamespace
) -> None:
    other = small.create(tmp_path / "other", NAMES[::-1])
    assert small.base_bytes(folder) == small.base_bytes(other)
    for name in ("index.json", "codebooks.npy", "changes.sqlite"):
        assert (folder / name).read_bytes() == (other / name).read_bytes()


def test_an_index_of_nothing_is_one(tmp_path: Path, small: SimpleNamespace) -> None:
    with Index.open(small.create(tmp_path / "none", []), writable=True) as index:
        assert len(index) == 0
        index.compact()
        index.add_encoded(ids=["a"], metadata=small.metadata(["a"]), **small.images(["a"]))
        assert small.contents(index) == small.expected(["a"])
        index.remove(["a"])
        index.compact()
        assert small.contents(index) == {}
        index.verify()


def fail(_: Path) -> None:
    raise OSError(28, "No space left on device", "weights")


def test_a_failure_leaves_nothing_and_an_old_index_as_it_was(
    folder: Path, tmp_path: Path, small: SimpleNamespace
) -> None:
    with pytest.raises(IndexingError, match="No space left on device \\(weights\\)"):
        small.create(tmp_path / "new", ["x"], models_writer=fail)
    with pytest.raises(IndexingError, match="nothing was changed"):
        small.create(folder, ["x"], models_writer=fail, replace=True)
    assert list_names(folder.parent) == ["index"]
    with Index.open(folder) as index:
        assert len(index) == len(NAMES)


def test_what_is_there_is_replaced_only_if_told_if_an_index_and_if_no_one_writes_it(
    folder: Path, tmp_path: Path, small: SimpleNamespace
) -> None:
    with pytest.raises(IndexingError, match="is there already"):
        small.create(folder, ["x"])
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").touch()
    with pytest.raises(IndexingError, match="is not an index, so it is not replaced"):
        small.create(tmp_path / "photos", ["x"], replace=True)
    with Index.open(folder, writable=True), pytest.raises(IndexingError, match="has a writer"):
        small.create(folder, ["x"], replace=True)
    (folder / "codebooks.npy").unlink()  # a damaged one may be replaced
    small.create(folder, ["x"], replace=True)
    (tmp_path / "empty").mkdir()
    small.create(tmp_path / "empty", ["x"])
    assert list_names(folder.parent) == ["empty", "index", "photos"]
    for made in (folder, tmp_path / "empty"):
        with Index.open(made, writable=True) as index:
            assert small.contents(index) == small.expected(["x"], trained=None)


def test_what_killed_processes_left_beside_is_cleared_unless_one_lives(
    folder: Path, tmp_path: Path, small: SimpleNamespace
) -> None:
    for name in (".index.77.tmp", ".index.78.tmp"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "lock").touch()
    held = folders.lock(tmp_path / ".index.78.tmp")
    small.create(folder, ["x"], replace=True)
    held.release()
    assert list_names(folder.parent) == [".index.78.tmp", "index"]


def test_what_a_killed_writer_left_inside_is_cleared(folder: Path) -> None:
    (folder / "base" / "2").mkdir()
    (folder / "base" / ".3.tmp").mkdir()
    Index.open(folder).close()
    assert (folder / "base" / "2").exists(), "readers touch nothing"
    Index.open(folder, writable=True).close()
    files = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    own = [f"base/1/{name}" for name in list_names(folder / "base" / "1")]
    assert files == sorted(
        ["changes.sqlite", "codebooks.npy", "index.json", "lock", "models/weights", *own]
    )


def test_there_is_one_writer_and_the_second_is_told_who(folder: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from irgen.index.folder import lock
held = lock(Path({str(folder)!r}))
print("held", flush=True)
sys.stdin.read()
"""
    holder = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdin and holder.stdout
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(IndexingError, match=f"has a writer already \\(process {holder.pid}\\)"):
        Index.open(folder, writable=True)
    Index.open(folder).close()
    holder.kill()
    holder.wait()
    holder.stdin.close()
    holder.stdout.close()
    with (
        Index.open(folder, writable=True),
        pytest.raises(IndexingError, match=f"process {os.getpid()}"),
    ):
        Index.open(folder, writable=True)
    Index.open(folder, writable=True).close()


def test_a_folder_that_is_no_index_is_told_from_a_missing_one(tmp_path: Path) -> None:
    with pytest.raises(IndexingError, match=r"there is no index at .*nowhere"):
        Index.open(tmp_path / "nowhere")
    with pytest.raises(IndexingError, match=r"is not an index: it has no index\.json"):
        Index.open(tmp_path, writable=True)
    assert list(tmp_path.iterdir()) == [], "not even a lock"
    damage.write_sealed(tmp_path / "index.json", {"format": "something else"})
    with pytest.raises(IndexingError, match="does not say format 'irgen-index'"):
        Index.open(tmp_path)


def test_a_newer_version_is_refused(folder: Path) -> None:
    description = damage.read_sealed(folder / "index.json")
    del description["digest"]
    damage.write_sealed(folder / "index.json", description | {"version": 3})
    with pytest.raises(IndexingError, match="newer irgen \\(version 3 of the format"):
        Index.open(folder)
