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
from irgen.index import bundle, compaction, disk, items
from irgen.index import index as index_module
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
    ids = view.items.ids(rows)
    assert sorted(ids) == sorted([*NAMES, "x"])
    assert view.find(ids).tolist() == rows.tolist()
    assert view.find(["x", "nobody", "a"]).tolist()[1] == -1
    assert view.items.frame["id"][rows].to_list() == ids


def test_codes_are_the_codebooks_where_none_are_given(index: Index, small) -> None:
    books = index._store.bundle.codebooks
    embedding = torch.nn.functional.normalize(books[0, 3], dim=0)[None]
    index.add_encoded(embedding, ["x"])
    assert small.contents(index)["x"][0][0] == 3
    assert small.contents(index)["x"][3] == (None, None), "metadata is null where none is given"


def test_an_empty_call_changes_nothing(index: Index, folder: Path, small) -> None:
    before = (folder / "logs" / "1.log").read_bytes()
    index.add_encoded(torch.empty(0, small.D), [])
    index.upsert_encoded(np.empty((0, small.D), np.float16), [], codes=torch.empty(0, 3).int())
    index.remove([])
    assert (folder / "logs" / "1.log").read_bytes() == before


def test_metadata_may_be_called_as_the_log_calls_its_columns(tmp_path: Path, small) -> None:
    table = pl.DataFrame({"id": ["a"], "key": [1], "code": ["x"], "items": [True]})
    place = small.create(tmp_path / "index", ["a"], items=table)
    with Index.open(place, writable=True) as index:
        index.upsert_encoded(ids=["a"], metadata=pl.DataFrame({"key": [2]}), **small.images(["a"]))
    with Index.open(place) as index:
        assert small.contents(index)["a"][3] == (2, None, None)


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


def test_what_cannot_be_done_is_told_and_nothing_is_done(index: Index, folder, small) -> None:
    before, log = small.contents(index), (folder / "logs" / "1.log").read_bytes()
    for method, told, arguments in refusals(small):
        with pytest.raises(IndexingError, match=told):
            getattr(index, method)(**arguments)
    assert small.contents(index) == before
    assert (folder / "logs" / "1.log").read_bytes() == log


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"trained": torch.ones(5)}, "trained is float32"),
        ({"trained": torch.ones(4, dtype=torch.bool)}, r"not bool \(5,\)"),
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
    true = items.keys_of
    monkeypatch.setattr(
        items, "keys_of", lambda ids: true([i.removesuffix("'") for i in ids])
    )  # now x and x' have one key
    monkeypatch.setattr("irgen.index.view.keys_of", items.keys_of)
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
    index._store._writer.process += 1
    with pytest.raises(IndexingError, match="of which this is a fork"):
        index.remove(["a"])
    index._store._writer.process -= 1
    index.close()
    index.close()
    with pytest.raises(IndexingError, match="was closed: open it again"):
        index.remove(["a"])


def test_info_says_what_is_in_it(index: Index, folder: Path, add) -> None:
    add(index, "x", "y")
    index.remove(["a", "bb", "x"])
    found = index.info()
    assert len(index) == found["images"] == 4
    assert (found["trained"], found["added"], found["dead_rows"]) == (1, 1, 3)
    assert (found["levels"], found["codebook"], found["width"]) == (3, 8, 8)
    assert found["columns"] == {"label": "String", "price": "Int32"}
    assert found["bytes"]["log"] == (folder / "logs" / "1.log").stat().st_size
    assert found["bytes"]["models"] == len(b"weights")
    assert (found["generation"], found["writable"]) == (1, True)


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
    assert small.generation_bytes(home / "index") == small.generation_bytes(fresh)


def test_a_saved_index_is_the_compacted_one(index: Index, folder, tmp_path, add, small) -> None:
    add(index, "x")
    index.remove(["a"])
    index.save(tmp_path / "copy")
    with pytest.raises(IndexingError, match="is there already"):
        index.save(tmp_path / "copy")
    index.compact()
    assert small.generation_bytes(tmp_path / "copy") == small.generation_bytes(folder)
    for name in ("bundle.json", "codebooks.npy", "models/weights"):
        assert (tmp_path / "copy" / name).read_bytes() == (folder / name).read_bytes()


def test_a_view_outlives_the_generation_it_was_read_from(index: Index, folder, add, small) -> None:
    add(index, "x")
    with Index.open(folder) as reader:
        view = reader.view
        before = small.contents(reader)
        index.remove(["a", "x"])
        index.compact()
        index.compact()
        assert [path.name for path in (folder / "generations").iterdir()] == ["3"]
        assert [path.name for path in (folder / "logs").iterdir()] == ["3.log"]
        assert reader.view is view
        assert small.contents(reader) == before
        reader.save(folder.with_name("old"))  # takes in what is new, first
        assert small.contents(reader) == small.contents(index)


def test_what_comes_while_the_index_is_compacted_is_carried_over(
    index: Index, folder: Path, add, small, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = compaction.next_generation

    def meanwhile(*arguments: Any) -> Any:
        worker = threading.Thread(target=lambda: (add(index, "x", "y"), index.remove(["a", "x"])))
        worker.start()
        worker.join(10)
        found = true(*arguments)
        add(index, "bb", version=3, put="upsert_encoded")
        return found

    monkeypatch.setattr(compaction, "next_generation", meanwhile)
    index.compact()
    wanted = small.expected(NAMES, trained=None) | small.expected(["y"])
    wanted |= small.expected(["bb"], 3)
    del wanted["a"]
    assert small.contents(index) == wanted
    with Index.open(folder) as reader:
        assert small.contents(reader) == wanted
        assert reader.info()["generation"] == 2


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
        ids = view.items.ids(view.snapshot.alive_rows().numpy())
        print(*sorted(ids), index.info()["generation"], flush=True)
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


def test_a_reader_with_nothing_new_looks_at_two_files(index, folder, add, monkeypatch) -> None:
    with Index.open(folder) as reader:
        reader.refresh()
        looks, true = [], Path.stat
        monkeypatch.setattr(Path, "stat", lambda *a, **k: looks.append(1) or true(*a, **k))
        reader.refresh()
        assert len(looks) == 2
        view = reader.view
        add(index, "x")
        reader.refresh()
        assert reader.view is not view
        assert reader.view.generation is view.generation, "only the log's end was read"


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_changes_nothing_and_the_index_goes_on(
    index: Index, folder: Path, tmp_path, add, small
) -> None:
    before = small.contents(index)
    calls: list[tuple[Any, str, Callable]] = [
        (os, "pwrite", lambda opened: add(opened, "x")),
        (disk, "write", lambda opened: opened.compact()),
        (disk, "put", lambda opened: opened.compact()),
        (disk, "settle_tree", lambda opened: opened.save(tmp_path / "copy")),
        (os, "fsync", lambda opened: opened.remove(["a"])),
    ]
    for module, name, call in calls:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, name, full)
            with pytest.raises(IndexingError, match=r"failed: No space .*nothing was changed"):
                call(index)
        assert small.contents(index) == before
        with Index.open(folder) as reader:
            assert small.contents(reader) == before
    with pytest.raises(IndexingError, match=r"could not be brought back .*: open the index again"):
        add(index, "x")  # who cannot flush cannot take back for good, either
    index.close()
    index = Index.open(folder, writable=True)
    assert not (tmp_path / "copy").exists()
    add(index, "x")
    index.compact()
    assert small.contents(index) == before | small.expected(["x"])
    index.close()


@pytest.mark.parametrize("counts", [False, True])
def test_a_compaction_that_fails_at_its_very_end_leaves_the_old_state_or_closes_the_index(
    index: Index, folder: Path, add, small, counts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closed, it is opened again in whichever state counts, and both hold the same."""
    add(index, "x")
    before, true = small.contents(index), bundle.point

    def point(own: Any, number: int) -> None:
        if counts:
            true(own, number)
        full()

    with monkeypatch.context() as patch:
        patch.setattr(bundle, "point", point)
        with pytest.raises(IndexingError, match="No space"):
            index.compact()
    if counts:
        with pytest.raises(IndexingError, match="was closed"):
            index.remove(["x"])
        index = Index.open(folder, writable=True)
    index.remove(["x"])
    index.compact()
    del before["x"]
    assert small.contents(index) == before
    index.close()


def test_an_interrupt_between_the_log_and_the_view_loses_nothing(
    index: Index, folder: Path, add, small, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("irgen.index.store.replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            add(index, "x")
    with pytest.raises(IndexingError, match="in the index already: 'x'"):
        add(index, "x")
    assert "x" in small.contents(index)


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
        return Fake(index._store.bundle.codebooks)

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
    assert places == [index._store.bundle.folder / "models"], "loaded once"
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
