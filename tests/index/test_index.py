"""The live index: whatever is done to it, and in whatever order, it holds what a dictionary would,
and compacted it is the index that would be made afresh."""

import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from irgen.catalog.images import Decoding
from irgen.errors import ImageError, IndexingError
from irgen.index import base_files, rows
from irgen.index import folder as folders
from irgen.index import index as index_module
from irgen.index import store as store_module
from irgen.index.database import Database
from irgen.index.index import Index

NAMES = ["a", "bb", "ccc", "dddd", "eeeee"]


@pytest.fixture
def folder(tmp_path: Path, small: SimpleNamespace) -> Path:
    return small.create(tmp_path / "index", NAMES)


@pytest.fixture
def index(folder: Path) -> Iterator[Index]:
    with Index.open(folder, writable=True) as opened:
        yield opened


@pytest.fixture
def add(small: SimpleNamespace) -> Callable[..., None]:
    """Adds, or with ``put`` = upsert_encoded replaces, images as made here."""

    def do(index: Index, *names: str, version: int = 0, put: str = "add_encoded") -> None:
        given = {"metadata": small.metadata(names, version), **small.images(names, version)}
        getattr(index, put)(ids=names, **given)

    return do


def test_images_come_are_replaced_and_go(index: Index, folder: Path, add, small) -> None:
    wanted = small.expected(NAMES, trained=None)
    add(index, "x", "a new one")
    wanted |= small.expected(["x", "a new one"])
    assert small.contents(index) == wanted
    add(index, "bb", "y", "x", version=1, put="upsert_encoded")
    wanted |= small.expected(["bb", "y", "x"], version=1)
    assert small.contents(index) == wanted
    index.remove(["a", "y"])
    del wanted["a"], wanted["y"]
    assert small.contents(index) == wanted
    add(index, "a", "y", version=2)
    wanted |= small.expected(["a", "y"], version=2)
    assert small.contents(index) == wanted
    with Index.open(folder) as reader:
        assert small.contents(reader) == wanted


def test_the_view_is_searched_by_rows_that_its_items_name(index: Index, add) -> None:
    add(index, "x")
    view = index.view
    rows = view.snapshot.alive_rows().numpy()
    ids = view.ids(rows)
    assert sorted(ids) == sorted([*NAMES, "x"])
    assert view.find(ids).tolist() == rows.tolist()
    assert view.find(["x", "nobody", "a"]).tolist()[1] == -1
    assert view.table["id"][rows].to_list() == ids


def test_codes_are_the_codebooks_where_none_are_given(index: Index, small) -> None:
    books = index.folder.codebooks
    embedding = torch.nn.functional.normalize(books[0, 3], dim=0)[None]
    index.add_encoded(embedding, ["x"])
    assert small.contents(index)["x"][0][0] == 3
    assert small.contents(index)["x"][3] == (None, None), "metadata is null where none is given"


def test_an_empty_call_changes_nothing(index: Index, small) -> None:
    before = index.revision
    index.add_encoded(torch.empty(0, small.D), [])
    index.upsert_encoded(np.empty((0, small.D), np.float16), [], codes=torch.empty(0, 3).int())
    index.remove([])
    assert index.revision == before


def test_metadata_columns_may_have_any_name(tmp_path: Path, small) -> None:
    columns = {"key": [1], "code": ["x"], "allow": [True], "a 'quoted\" name": [2.5], "": [None]}
    table = pl.DataFrame({"id": ["a"], **columns})
    place = small.create(tmp_path / "index", ["a"], items=table)
    with Index.open(place, writable=True) as index:
        index.upsert_encoded(ids=["a"], metadata=pl.DataFrame({"key": [2]}), **small.images(["a"]))
    with Index.open(place) as index:
        assert small.contents(index)["a"][3] == (2, None, None, None, None)


def refusals(small: SimpleNamespace) -> list[tuple[str, str, dict[str, Any]]]:
    """Calls that are refused: the method, what is told, the arguments."""
    one, two = small.images(["x"]), small.images(["x", "y"])
    flat = one["embeddings"]
    return [
        ("add_encoded", "in the index already: 'bb'; use upsert", {"ids": ["x", "bb"], **two}),
        ("add_encoded", "given twice: 'x'", {"ids": ["x", "x"], **two}),
        ("add_encoded", "id 0 is 7", {"ids": [7], **one}),
        ("add_encoded", r"shape \(1, 8\): 2 ids .* \(2, 8\)", {"ids": ["x", "y"], **one}),
        ("add_encoded", r"floats of shape \(1, 8\)", {"ids": ["x"], "embeddings": flat[:, :7]}),
        ("add_encoded", "int64 of shape", {"ids": ["x"], "embeddings": flat.long()}),
        ("add_encoded", "'x' is not finite", {"ids": ["x"], "embeddings": flat * torch.nan}),
        ("add_encoded", "length inf", {"ids": ["x"], "embeddings": flat * torch.inf}),
        ("add_encoded", r"length 2\).*normalise", {"ids": ["x"], "embeddings": flat * 2}),
        ("add_encoded", "0 to 7", {"ids": ["x"], **one, "codes": torch.tensor([[0, 1, 8]])}),
        ("add_encoded", "from -1", {"ids": ["x"], **one, "codes": torch.tensor([[0, 1, -1]])}),
        ("add_encoded", r"codes are int64 .*\(1, 3\)", {"ids": ["x"], **one, "codes": [[1, 2]]}),
        ("add_encoded", "codes are float32", {"ids": ["x"], **one, "codes": torch.ones(1, 3)}),
        (
            "upsert_encoded",
            "'lable' .*did you mean 'label'",
            {"ids": ["x"], **one, "metadata": pl.DataFrame({"lable": ["a"]})},
        ),
        (
            "upsert_encoded",
            "'price' is of type String",
            {"ids": ["x"], **one, "metadata": pl.DataFrame({"price": ["cheap"]})},
        ),
        ("add_encoded", "2 rows for 1", {"ids": ["x"], **one, "metadata": small.metadata("ab")}),
        (
            "remove",
            "not in the index: 'x', 'y', 'z' and 1 more",
            {"ids": ["x", "y", "z", "w", "a"]},
        ),
        ("remove", "given twice: 'a'", {"ids": ["a", "a"]}),
        ("remove", "not the one string 'a'", {"ids": "a"}),
    ]


def test_what_cannot_be_done_is_told_and_nothing_is_done(index: Index, small) -> None:
    before, revision = small.contents(index), index.revision
    for method, told, arguments in refusals(small):
        with pytest.raises(IndexingError, match=told):
            getattr(index, method)(**arguments)
    assert small.contents(index) == before
    assert index.revision == revision


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"trained": torch.ones(5)}, "trained is float32"),
        ({"trained": torch.ones(4, dtype=torch.bool)}, r"not bool of shape \(5,\)"),
        ({"codes": torch.zeros(5, 2).long()}, r"shape \(5, 2\)"),
        ({"embeddings": torch.ones(5, 8)}, "length 2.828"),
        ({"items": pl.DataFrame({"id": ["a", "b", "c", "d", "a"]})}, "given twice: 'a'"),
        ({"items": pl.DataFrame({"id": ["a"]})}, "1 "),
        ({"items": pl.DataFrame({"id": [1, 2, 3, 4, 5]})}, "id 0 is 1"),
    ],
)
def test_a_new_index_of_what_does_not_fit_is_refused(tmp_path: Path, small, change, told) -> None:
    with pytest.raises(IndexingError, match=told):
        small.create(tmp_path / "index", NAMES, **change)
    assert list(tmp_path.iterdir()) == []


def test_two_ids_of_one_key_are_never_mixed_up(tmp_path, small, add, monkeypatch) -> None:
    true = rows.hash_ids

    def hash_ids(ids):  # now x and x' have one key
        return true([name.removesuffix("'") for name in ids])

    for module in ("rows", "view", "store"):
        monkeypatch.setattr(f"irgen.index.{module}.hash_ids", hash_ids)
    with Index.open(small.create(tmp_path / "index", ["x", "z"]), writable=True) as index:
        for put in ("add_encoded", "upsert_encoded"):
            with pytest.raises(IndexingError, match="'x' and \"x'\" have the same 63-bit hash"):
                add(index, "x'", put=put)
        with pytest.raises(IndexingError, match='not in the index: "x\'"'):
            index.remove(["x'"])
        assert index.view.find(["x'"]).tolist() == [-1]
        index.remove(["x"])
        add(index, "x'")
        assert small.contents(index).keys() == {"x'", "z"}
        with pytest.raises(IndexingError, match="have the same"):
            add(index, "x")
        index.remove(["x'"])
        add(index, "x", version=1)
        index.compact()
        assert small.contents(index)["x"] == small.expected(["x"], 1)["x"]


def test_only_a_writer_that_is_open_and_no_fork_of_it_writes(folder, index, add, small) -> None:
    with Index.open(folder) as reader:
        calls: list[Callable] = [
            lambda: add(reader, "x"),
            lambda: add(reader, "x", put="upsert_encoded"),
            lambda: reader.remove(["a"]),
            reader.compact,
        ]
        for call in calls:
            with pytest.raises(IndexingError, match="opened for reading: open it with writable"):
                call()
    index._writer._process += 1
    with pytest.raises(IndexingError, match="of which this is a fork"):
        index.remove(["a"])
    index._writer._process -= 1
    index.close()
    index.close()
    with pytest.raises(IndexingError, match="was closed: open it again"):
        index.remove(["a"])


def test_info_says_what_is_in_it(index: Index, folder: Path, add) -> None:
    add(index, "x", "y")
    index.remove(["a", "bb", "x"])
    found = index.info()
    assert len(index) == found["images"] == 4
    assert (found["trained"], found["added"], found["dead_rows"]) == (1, 1, 2)
    assert (found["levels"], found["codebook"], found["width"]) == (3, 8, 8)
    assert found["columns"] == {"label": "String", "price": "Int32"}
    assert found["bytes"]["changes"] >= (folder / "changes.sqlite").stat().st_size
    assert found["bytes"]["models"] == len(b"weights")
    assert (found["base"], found["writable"]) == (1, True)


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
    made = [small.images([n], versions[n]) for n in names]
    about = [small.metadata([]), *(small.metadata([n], versions[n]) for n in names)]
    fresh = small.create(
        home / "fresh",
        names,
        items=pl.DataFrame({"id": names}, {"id": pl.String}).hstack(pl.concat(about)),
        trained=torch.tensor([alive[n][2] for n in names], dtype=torch.bool),
        embeddings=torch.cat([torch.empty(0, small.D), *(m["embeddings"] for m in made)]),
        codes=torch.cat([torch.empty(0, small.M).long(), *(m["codes"] for m in made)]),
    )
    assert small.base_bytes(home / "index") == small.base_bytes(fresh)


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


def test_a_view_outlives_the_base_it_was_read_from(index: Index, folder, add, small) -> None:
    add(index, "x")
    with Index.open(folder) as reader:
        view = reader.view
        before = small.contents(reader)
        index.remove(["a", "x"])
        index.compact()
        index.compact()
        assert [path.name for path in (folder / "base").iterdir()] == ["3"]
        assert reader.view is view
        assert small.contents(reader) == before
        reader.save(folder.with_name("old"))  # takes in what is new, first
        assert small.contents(reader) == small.contents(index)


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


def test_searching_threads_never_see_half_a_change(index: Index, folder: Path, add, small) -> None:
    """Two images come and go together; another is always there, under one of two versions."""
    stop, wrong = threading.Event(), []
    rounds = [0]

    def look(opened: Index) -> None:
        while not stop.is_set():
            opened.refresh()
            view = opened.view
            pair = (view.find(["one", "two"]) >= 0).tolist()
            rows = view.find(["bb"])
            if pair[0] != pair[1] or rows[0] < 0 or len(view.snapshot) not in (5, 7):
                wrong.append((pair, rows))
            rounds[0] += 1

    with Index.open(folder) as reader:
        threads = [threading.Thread(target=look, args=(o,)) for o in (index, reader, reader)]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline and not wrong:
            add(index, "one", "two")
            add(index, "bb", version=1, put="upsert_encoded")
            index.compact()
            index.remove(["two", "one"])
        stop.set()
        for thread in threads:
            thread.join()
    assert not wrong
    assert rounds[0] > 20


def test_readers_in_other_processes_follow_the_writer(index: Index, folder: Path, add) -> None:
    code = f"""
import sys
from irgen.index.index import Index
with Index.open({str(folder)!r}) as index:
    print("open", flush=True)
    for line in sys.stdin:
        index.refresh()
        view = index.view
        print(*sorted(view.all_ids()), index.info()["base"], flush=True)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as reader:
        assert reader.stdin
        assert reader.stdout

        def ask() -> str:
            reader.stdin.write("?\n")
            reader.stdin.flush()
            return reader.stdout.readline().strip()

        assert reader.stdout.readline() == "open\n"
        assert ask() == "a bb ccc dddd eeeee 1"
        add(index, "x")
        assert ask() == "a bb ccc dddd eeeee x 1"
        index.remove(["a", "bb", "ccc"])
        index.compact()
        assert ask() == "dddd eeeee x 2"
        add(index, "y")
        index.compact()
        index.remove(["x"])
        assert ask() == "dddd eeeee y 3"
        reader.stdin.close()


def test_a_reader_reads_only_what_is_new(index, folder, add, monkeypatch) -> None:
    with Index.open(folder) as reader:
        view = reader.view
        reader.refresh()
        assert reader.view is view
        add(index, "x")
        reader.refresh()
        assert reader.view is not view
        assert reader.view.base is view.base
        assert reader.view.snapshot.segments[0] is view.snapshot.segments[0]


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


def test_a_reader_never_sees_what_is_not_committed(index: Index, folder: Path, add, small) -> None:
    """The moment before the commit is the one at which a kill or an interrupt takes all back."""
    before = small.contents(index)
    with Index.open(folder) as reader:

        def look(statement: str) -> None:
            if statement == "COMMIT":
                reader.refresh()
                assert small.contents(reader) == before
                raise KeyboardInterrupt

        index._writer._connection.set_trace_callback(look)
        add(index, "x", "y")
        index._writer._connection.set_trace_callback(None)
        reader.refresh()
        assert small.contents(reader) == before | small.expected(["x", "y"])


def test_a_folder_that_cannot_be_written_is_read_until_somebody_else_writes(
    index: Index, folder: Path, add, small
) -> None:
    add(index, "x")
    expected = small.contents(index)
    index.close()
    (folder / "changes.sqlite-shm").mkdir()  # nor can SQLite make this file
    with Index.open(folder) as reader:
        assert small.contents(reader) == expected
        (folder / "changes.sqlite-shm").rmdir()
        code = f"""
import os
from pathlib import Path
from irgen.index.database import Database
Database(Path({str(folder)!r}), writable=True).remove(["x"], {rows.hash_ids(["x"])!r})
os._exit(0)
""".replace("array(", "__import__('numpy').array(")
        subprocess.run([sys.executable, "-c", code], check=True)
        reader.refresh()
        del expected["x"]
        assert small.contents(reader) == expected


def test_a_writer_killed_as_it_first_opened_the_file_is_cleared_up(folder: Path, small) -> None:
    before = (folder / "changes.sqlite").read_bytes()
    code = f"""
import os, sqlite3
connection = sqlite3.connect({str(folder / "changes.sqlite")!r}, isolation_level=None)
connection.execute("PRAGMA cache_size = 1")
connection.execute("PRAGMA cache_spill = 1")
connection.execute("BEGIN")
for key in range(200):
    connection.execute("INSERT INTO changes (key, id, checksum) VALUES (?, ?, 0)", (key, "x" * 999))
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    assert (folder / "changes.sqlite-journal").exists()
    assert (folder / "changes.sqlite").read_bytes() != before
    with Index.open(folder) as reader:
        assert small.contents(reader) == small.expected(NAMES, trained=None)


def test_a_fork_reads_by_a_connection_of_its_own(index: Index, folder: Path, add) -> None:
    file = Database(folder)
    add(index, "x")
    process = os.fork()
    if not process:
        os._exit(file.state().revision)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 1
    add(index, "y")
    assert file.state().revision == 2
    file.close()


def test_a_replaced_index_keeps_its_log_when_readers_of_the_old_one_leave(
    folder: Path, add, small
) -> None:
    with Index.open(folder, writable=True) as writer:
        add(writer, "x")
    reader = Index.open(folder)
    small.create(folder, ["new"], replace=True)
    with Index.open(folder, writable=True) as writer:
        add(writer, "y")
        log = (folder / "changes.sqlite-wal").read_bytes()
        reader.close()
        assert (folder / "changes.sqlite-wal").read_bytes() == log


class Fake:
    """Models whose embedding of an image is its first pixels."""

    decoding = Decoding(size=4, channels=1)

    def __init__(self, codebooks: torch.Tensor):
        self.tokenizer = SimpleNamespace(codebooks=codebooks)

    def embed(self, pixels: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(pixels.flatten(1)[:, :8].float(), dim=1)


def test_images_in_any_form_are_read_by_the_bundles_models(
    index: Index, tmp_path: Path, small, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = []

    def load_models(place: Path, device: torch.device) -> Fake:
        places.append(place)
        return Fake(index.folder.codebooks)

    monkeypatch.setattr(index_module, "load_models", load_models)
    monkeypatch.setattr(index_module, "BATCH", 2)
    pixels = np.random.default_rng(0).integers(1, 256, (5, 1, 4, 4), dtype=np.uint8)
    pictures = [Image.fromarray(p[0]) for p in pixels]
    pictures[1].save(tmp_path / "1.png")
    names = list("vwxyz")
    index.add([pictures[0], tmp_path / "1.png", *pictures[2:]], names, small.metadata(names))
    first = small.contents(index)
    index.upsert(torch.from_numpy(pixels), names, small.metadata(names))
    assert small.contents(index) == first
    assert places == [index.folder.path / "models"], "loaded once"
    halves = Fake(torch.empty(0)).embed(torch.from_numpy(pixels)).half().numpy()
    assert [first[name][1] for name in names] == [half.tobytes() for half in halves]
    with pytest.raises(IndexingError, match="already: 'v'"):
        index.add(pictures, names)
    with pytest.raises(IndexingError, match="5 images for 1 ids"):
        index.add(pictures, ["new"])
    with pytest.raises(ImageError, match=r"from image 2 on, .*nowhere\.png: No such file"):
        index.add([*pictures[:2], "nowhere.png"], ["n1", "n2", "n3"])
    with pytest.raises(ImageError, match="write \\[it\\]"):
        index.add(str(tmp_path / "1.png"), ["n1"])
    assert small.contents(index) == first


def test_models_with_other_codebooks_are_refused(index: Index, monkeypatch) -> None:
    monkeypatch.setattr(index_module, "load_models", lambda *_: Fake(torch.zeros(3, 8, 8)))
    with pytest.raises(IndexingError, match="the codebooks are not those of its models"):
        _ = index.models
