"""Whatever is done to an index, compacted it is the index that would be made afresh."""

import errno
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from irgen.errors import IndexingError, IrgenWarning
from irgen.index import base_files
from irgen.index import folder as folders
from irgen.index import store as store_module
from irgen.index.index import Index

from .conftest import NAMES

OPERATIONS = ["add", "upsert", "remove", "compact", "save", "reopen"]
STEPS = st.tuples(
    st.sampled_from(OPERATIONS[:3] * 3 + OPERATIONS), st.sets(st.integers(0, 9), max_size=5)
)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(start=st.sets(st.integers(0, 9)), steps=st.lists(STEPS, max_size=10))
def test_any_history_leaves_what_a_dictionary_would_hold_and_compacts_to_a_fresh_index(
    tmp_path_factory, small, add, start, steps
) -> None:
    home = tmp_path_factory.mktemp("history")
    pool = [f"{'image' * (n % 3)} {n}" for n in range(10)]
    names = [pool[n] for n in sorted(start)]
    alive = small.expected(names, trained=None)
    versions = dict.fromkeys(names, 0)
    index = Index.open(small.create(home / "index", names), writable=True)
    reader = Index.open(home / "index")
    for number, (operation, chosen) in enumerate(steps):
        names = [pool[n] for n in chosen]
        if operation in ("add", "upsert"):
            if operation == "add" and alive.keys() & set(names):
                with pytest.raises(IndexingError):
                    add(index, *names, version=number)
                continue
            add(index, *names, version=number, put=f"{operation}_encoded")
            alive |= small.expected(names, version=number)
            versions |= dict.fromkeys(names, number)
        elif operation == "remove":
            if set(names) - alive.keys():
                with pytest.raises(IndexingError):
                    index.remove(names)
                continue
            index.remove(names)
            alive = {name: what for name, what in alive.items() if name not in names}
        elif operation == "compact":
            index.compact()
        elif operation == "save":
            index.save(home / f"saved {number}")
            with Index.open(home / f"saved {number}") as saved:
                assert small.contents(saved) == alive
        else:
            index.close()
            index = Index.open(home / "index", writable=True)
        assert small.contents(index) == alive
        reader.refresh()
        assert small.contents(reader) == alive
    index.verify()
    index.compact()
    assert small.contents(index) == alive
    index.close()
    names = list(alive)
    encoded = [small.images([n], versions[n]) for n in names]
    metadata = [small.metadata([]), *(small.metadata([n], versions[n]) for n in names)]
    fresh = small.create(
        home / "fresh",
        names,
        items=pl.DataFrame({"id": names}, {"id": pl.String}).hstack(pl.concat(metadata)),
        trained=torch.tensor([alive[n][2] for n in names], dtype=torch.bool),
        embeddings=torch.cat([torch.empty(0, small.D), *(m["embeddings"] for m in encoded)]),
        codes=torch.cat([torch.empty(0, small.M).long(), *(m["codes"] for m in encoded)]),
    )
    assert small.base_bytes(home / "index") == small.base_bytes(fresh)


def test_a_closed_index_is_read_where_nothing_can_be_written_after_a_compaction_too(
    index: Index, folder, add
) -> None:
    add(index, "x")
    index.compact()
    index.close()
    assert not list(folder.glob("changes.sqlite-*"))
    Index.open(folder).close()
    assert not list(folder.glob("changes.sqlite-*")), "a reader writes nothing"


def test_a_saved_index_is_the_compacted_one(index: Index, folder, tmp_path, add, small) -> None:
    add(index, "x")
    index.remove(["a"])
    index.save(tmp_path / "copy")
    with pytest.raises(IndexingError, match="is there already"):
        index.save(tmp_path / "copy")
    index.compact()
    assert small.base_bytes(tmp_path / "copy") == small.base_bytes(folder)
    for name in ("index.json", "codebooks.npy", "models/weights"):
        assert (tmp_path / "copy" / name).read_bytes() == (folder / name).read_bytes()


def test_what_comes_while_the_index_is_compacted_is_carried_over(
    index: Index, folder: Path, add, small, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = store_module._write_base

    def meanwhile(*arguments: Any) -> None:
        worker = threading.Thread(target=lambda: (add(index, "x", "y"), index.remove(["a", "x"])))
        worker.start()
        worker.join(10)
        true(*arguments)
        add(index, "bb", version=3, put="upsert_encoded")

    monkeypatch.setattr(store_module, "_write_base", meanwhile)
    index.compact()
    wanted = small.expected(NAMES, trained=None) | small.expected(["y"])
    wanted |= small.expected(["bb"], 3)
    del wanted["a"]
    assert small.contents(index) == wanted
    with Index.open(folder) as reader:
        assert small.contents(reader) == wanted
        assert reader.info()["base"] == 2


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_changes_nothing_and_the_index_goes_on(
    index: Index, folder: Path, tmp_path, add, small
) -> None:
    before = small.contents(index)
    calls: list[tuple[Any, str, Callable]] = [
        (base_files, "write", lambda opened: opened.compact()),
        (store_module, "sync_tree", lambda opened: opened.compact()),
        (folders, "sync_tree", lambda opened: opened.save(tmp_path / "copy")),
    ]
    for module, name, call in calls:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, name, full)
            with pytest.raises(IndexingError, match=r"failed: No space .*nothing was changed"):
                call(index)
        assert small.contents(index) == before
    connection = index._writer._connection
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(IndexingError, match=r"failed: database or disk is full; nothing"):
        add(index, *(f"{number} and a long name" * 9 for number in range(99)))
    assert small.contents(index) == before
    with Index.open(folder) as reader:
        assert small.contents(reader) == before
    connection.execute("PRAGMA max_page_count = 1000000")
    assert not (tmp_path / "copy").exists()
    add(index, "x")
    index.compact()
    assert small.contents(index) == before | small.expected(["x"])


def test_a_compaction_that_does_not_come_to_its_end_changes_nothing(
    index: Index, folder: Path, add, small, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    add(index, "x")
    before = small.contents(index)
    for moment in ("switch", "read"):
        with monkeypatch.context() as patch:
            patch.setattr(index._writer, moment, fail)
            patch.setattr(index._file, moment, fail)
            with pytest.raises(KeyboardInterrupt):
                index.compact()
        with Index.open(folder) as reader:
            assert small.contents(reader) == before
    assert small.contents(index) == before
    index.remove(["x"])
    index.compact()
    del before["x"]
    assert small.contents(index) == before


def test_single_changes_never_pile_up(
    index: Index, folder: Path, add, small, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "MANY_CHANGES", 7)
    names = [f"single {number}" for number in range(40)]
    with Index.open(folder) as reader:
        for name in names:
            add(index, name)
            assert index.info()["added"] <= 7
            reader.refresh()
            assert len(reader) == len(index)
        index.remove(names[:20])
        assert index.info()["dead_rows"] == 0
    wanted = small.expected(NAMES, trained=None) | small.expected(names[20:])
    assert small.contents(index) == wanted
    index.verify()


def test_an_image_that_is_replaced_again_and_again_takes_one_row(
    index: Index, folder: Path, add, small, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "MANY_DEAD", 5)
    with Index.open(folder) as reader:
        for version in range(40):
            add(index, "x", version=version, put="upsert_encoded")
            reader.refresh()
            assert reader.info()["dead_rows"] <= 6
        for version in range(40):
            index.remove(["x"])
            reader.refresh()
            add(index, "x", version=version)
            reader.refresh()
            assert reader.info()["dead_rows"] <= 6
        assert small.contents(reader) == small.contents(index)
    assert index.info()["base"] == 1


def test_a_compaction_that_fails_by_itself_is_a_warning_and_not_tried_at_every_change(
    index: Index, add, small, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "MANY_CHANGES", 3)
    monkeypatch.setattr(base_files, "write", full)
    add(index, "1", "2", "3")
    with pytest.warns(IrgenWarning, match="the index was not compacted: .*No space left"):
        add(index, "4")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        add(index, "5")
    monkeypatch.undo()
    monkeypatch.setattr(store_module, "MANY_CHANGES", 3)
    add(index, "6", "7", "8")
    assert index.info()["base"] == 2
    added = small.expected([str(number) for number in range(1, 9)])
    assert small.contents(index) == small.expected(NAMES, trained=None) | added
