"""The folder: whole or not at all, and refused by name where it is not what was written."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Thread, Timer
from types import SimpleNamespace

import pytest
import torch

from irgen.errors import IndexingError, ReplacedWarning
from irgen.index import base_files, damage
from irgen.index import folder as folders
from irgen.index.index import Index

from .conftest import NAMES


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def left_beside(folder: Path) -> list[str]:
    return names(folder.parent)


def test_a_new_index_holds_what_it_was_given(folder: Path, small: SimpleNamespace) -> None:
    with Index.open(folder) as index:
        assert small.contents(index) == small.expected(NAMES, trained=None)
        assert index.info()["config"] == {"made by": "a test"}
        index.verify()
    assert (folder / "models" / "weights").read_bytes() == b"weights"
    assert left_beside(folder) == ["index"]


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
    assert left_beside(folder) == ["index"]
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
    assert left_beside(folder) == ["empty", "index", "photos"]
    for made in (folder, tmp_path / "empty"):
        with Index.open(made, writable=True) as index:
            assert small.contents(index) == small.expected(["x"], trained=None)


def test_a_reader_goes_on_with_an_index_of_the_same_models_that_replaced_its_own(
    folder: Path, small: SimpleNamespace
) -> None:
    with Index.open(folder) as reader:
        reader.refresh()
        small.create(folder, ["x"], replace=True)
        reader.refresh()
        assert small.contents(reader) == small.expected(["x"], trained=None)
        small.create(folder, ["y"], replace=True, config={"made by": "another"})
        with pytest.warns(ReplacedWarning, match="replaced by an index of other models"):
            reader.refresh()
        reader.refresh()  # says so once
        assert small.contents(reader) == small.expected(["x"], trained=None)


def test_a_reader_takes_nothing_of_a_replacement_that_it_cannot_read(
    folder: Path, small: SimpleNamespace
) -> None:
    with Index.open(folder) as reader:
        small.create(folder, ["x"], replace=True)
        (folder / "base" / "1").rename(folder / "away")
        for _ in range(2):
            with pytest.raises(IndexingError, match="base/1"):
                reader.refresh()
        (folder / "away").rename(folder / "base" / "1")
        reader.refresh()
        assert small.contents(reader) == small.expected(["x"], trained=None)


def test_a_writer_refuses_changes_of_an_index_that_was_deleted(
    folder: Path, small: SimpleNamespace
) -> None:
    with Index.open(folder, writable=True) as index:
        index.remove(NAMES[:1])
        shutil.rmtree(folder)
        with pytest.raises(IndexingError, match="was deleted or replaced meanwhile: open it again"):
            index.remove(NAMES[1:2])


def test_an_index_whose_replacement_was_killed_midway_is_put_back(
    folder: Path, tmp_path: Path, small: SimpleNamespace
) -> None:
    folder.rename(tmp_path / ".index.77.old.tmp")
    with Index.open(folder) as index:
        assert len(index) == len(NAMES)
    folder.rename(tmp_path / ".index.77.old.tmp")
    with pytest.raises(IndexingError, match="is there already"):
        small.create(folder, ["x"])
    assert left_beside(folder) == ["index"]


def test_who_opens_it_between_the_two_renames_waits_for_the_new_one(
    folder: Path, tmp_path: Path, small: SimpleNamespace
) -> None:
    small.create(tmp_path / "new", ["x"])
    old = tmp_path / ".index.77.old.tmp"
    held = folders.lock(folder)
    folder.rename(old)
    timer = Timer(0.1, lambda: (tmp_path / "new").rename(folder))
    timer.start()
    with Index.open(folder) as index:
        assert small.contents(index) == small.expected(["x"], trained=None)
    timer.join()
    held.release()
    assert old.exists()


def test_indexes_are_opened_whole_while_one_replaces_the_other(
    folder: Path, small: SimpleNamespace
) -> None:
    def replace() -> None:
        for number in range(12):
            config = {"made by": str(number)}
            small.create(folder, ["x", "y"][: 1 + number % 2], replace=True, config=config)

    writer = Thread(target=replace)
    writer.start()
    while writer.is_alive():
        with Index.open(folder) as index:
            assert len(index) in (1, 2, len(NAMES))
    writer.join()


def test_an_index_that_is_replaced_while_it_is_read_is_read_again(
    folder: Path, small: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, others = base_files.load_file, [*NAMES[1:], "x"]

    def replace_and_read(path: Path) -> dict[str, torch.Tensor]:
        monkeypatch.setattr(base_files, "load_file", read)
        small.create(folder, others, replace=True)
        return read(path)

    monkeypatch.setattr(base_files, "load_file", replace_and_read)
    with Index.open(folder) as index:
        assert small.contents(index) == small.expected(others, trained=None)


def test_what_killed_processes_left_beside_is_cleared_unless_one_lives(
    folder: Path, tmp_path: Path, small: SimpleNamespace
) -> None:
    for name in (".index.77.tmp", ".index.78.tmp"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "lock").touch()
    held = folders.lock(tmp_path / ".index.78.tmp")
    small.create(folder, ["x"], replace=True)
    held.release()
    assert left_beside(folder) == [".index.78.tmp", "index"]


def test_what_a_killed_writer_left_inside_is_cleared(folder: Path) -> None:
    (folder / "base" / "2").mkdir()
    (folder / "base" / ".3.tmp").mkdir()
    Index.open(folder).close()
    assert (folder / "base" / "2").exists(), "readers touch nothing"
    Index.open(folder, writable=True).close()
    files = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    own = [f"base/1/{name}" for name in names(folder / "base" / "1")]
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


FILES = [
    "index.json",
    "codebooks.npy",
    "models/weights",
    "base/1/base.json",
    *(f"base/1/{name}" for name in base_files.FILES),
]


LATE = ("weights", "embeddings.npy")  # looked at when they are used


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_missing_or_cut_short_is_refused_by_name(folder: Path, name: str) -> None:
    path = folder / name
    whole = path.read_bytes()
    for size in {0, 1, len(whole) // 2, len(whole) - 1} - {len(whole)}:
        if not whole[size:].strip():
            continue  # without its line's end it says the same
        path.write_bytes(whole[:size])
        with pytest.raises(IndexingError, match=Path(name).name):
            Index.open(folder)
    path.unlink()
    with pytest.raises(IndexingError, match=Path(name).name):
        Index.open(folder)


@pytest.mark.parametrize("name", [f for f in FILES if f.split("/")[-1] not in LATE])
def test_a_flipped_bit_is_refused(folder: Path, name: str) -> None:
    path = folder / name
    whole = bytearray(path.read_bytes())
    for offset in range(0, len(whole), max(1, len(whole) // 40)):
        if chr(whole[offset]).isspace():
            continue  # as good a space as any other
        whole[offset] ^= 1 << offset % 8
        path.write_bytes(whole)
        with pytest.raises(IndexingError):
            Index.open(folder)
        whole[offset] ^= 1 << offset % 8
    path.write_bytes(whole)
    Index.open(folder).close()


def flip(path: Path, offset: int) -> None:
    whole = bytearray(path.read_bytes())
    whole[offset] ^= 4
    path.write_bytes(whole)


def test_a_damaged_file_of_changes_is_refused_or_says_the_same(
    folder: Path, small: SimpleNamespace
) -> None:
    new = [f"new {number}" for number in range(60)]
    with Index.open(folder, writable=True) as index:
        index.add_encoded(ids=new, metadata=small.metadata(new), **small.images(new))
        index.remove([*NAMES[:3], *new[:5]])
        expected = small.contents(index)
    path = folder / "changes.sqlite"
    whole = path.read_bytes()
    assert not path.with_name("changes.sqlite-wal").exists()
    flipped = range(0, len(whole), 41)
    damaged = [whole[:size] for size in (0, 1, 100, 4096, 8192, len(whole) // 2, len(whole) - 4096)]
    damaged += [whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :] for at in flipped]
    refused = 0
    for content in damaged:
        path.write_bytes(content)
        try:
            with Index.open(folder) as index:
                assert small.contents(index) == expected
        except IndexingError as error:
            assert "changes.sqlite" in str(error)
            refused += 1
    assert refused > 60  # most bits are of no account: pages are half empty
    path.unlink()
    with pytest.raises(IndexingError, match=r"changes\.sqlite is missing"):
        Index.open(folder)


def test_damaged_embeddings_are_found_when_they_are_read_as_a_whole(
    folder: Path, tmp_path: Path
) -> None:
    path = folder / "base" / "1" / "embeddings.npy"
    flip(path, 140)
    with Index.open(folder, writable=True) as index:
        tasks: list[Callable] = [
            index.verify,
            index.compact,
            lambda: index.save(tmp_path / "copy"),
            lambda: index.search_ids(["a"]),
            lambda: index.snapshot(index.view),
        ]
        for task in tasks:
            with pytest.raises(IndexingError, match=r"embeddings\.npy is damaged .*checksum"):
                task()
    assert left_beside(folder) == ["index"]
    assert names(folder / "base") == ["1"]
    flip(path, 140)
    for offset in (2, 30, 90):  # in the header
        flip(path, offset)
        with pytest.raises(IndexingError, match=r"embeddings\.npy is damaged"):
            Index.open(folder)
        flip(path, offset)


def test_damaged_models_are_found_before_they_are_used(folder: Path, tmp_path: Path) -> None:
    flip(folder / "models" / "weights", 3)
    with Index.open(folder) as index:
        tasks: list[Callable] = [
            index.verify,
            lambda: index.models,
            lambda: index.save(tmp_path / "copy"),
        ]
        for task in tasks:
            with pytest.raises(IndexingError, match="models/weights is damaged"):
                task()


def test_a_base_of_another_index_is_refused(
    folder: Path, tmp_path: Path, small: SimpleNamespace
) -> None:
    other = small.create(
        tmp_path / "other",
        ["a"],
        codebooks=torch.randn(2, 8, 4),
        codes=torch.zeros(1, 2, dtype=torch.int64),
        embeddings=torch.eye(4)[:1],
    )
    shutil.rmtree(folder / "base")
    shutil.copytree(other / "base", folder / "base")
    with pytest.raises(IndexingError, match="belongs to another base or index"):
        Index.open(folder)


def test_a_reader_whose_base_is_deleted_while_it_reads_takes_the_next(
    folder: Path, small: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = base_files.read

    def read(path: Path, number: int):
        if number == 1:  # at this very moment a writer compacts
            monkeypatch.setattr(base_files, "read", true)
            with Index.open(folder, writable=True) as writer:
                writer.remove(["a"])
                writer.compact()
        return true(path, number)

    with Index.open(folder, writable=True) as writer:
        writer.remove(["bb"])
    monkeypatch.setattr(base_files, "read", read)
    with Index.open(folder) as reader:
        assert reader.info()["base"] == 2
        assert small.contents(reader) == small.expected(NAMES[2:], trained=None)


def test_a_writer_that_waits_opens_the_index_that_is_there_at_last(
    folder: Path, tmp_path: Path, small: SimpleNamespace
) -> None:
    new, held = small.create(tmp_path / "new", ["another"]), folders.lock(folder)
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(Index.open, folder, writable=True, wait=60)
        time.sleep(0.2)
        folder.rename(tmp_path / "old")
        time.sleep(0.2)  # nothing is there
        assert not waiting.done() and not folder.exists()
        new.rename(folder)
        held.release()
        with waiting.result() as index:
            assert index.view.all_ids() == ["another"]
