"""Readers and writers of an index that another one replaces."""

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Thread, Timer
from types import SimpleNamespace

import pytest
import torch

from irgen.errors import IndexingError, ReplacedWarning
from irgen.index import base_files
from irgen.index import folder as folders
from irgen.index.index import Index

from .conftest import NAMES, list_names


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
    assert list_names(folder.parent) == ["index"]


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
