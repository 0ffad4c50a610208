"""The own index after another release: what is served now, with the same edits."""

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Thread

import polars as pl
import pytest
import torch

from irgen.catalog.uploads import read_upload, store_upload, upload_path
from irgen.checkpoints.models import save_models
from irgen.errors import IndexingError
from irgen.files.digests import checksums
from irgen.index import copying, folder
from irgen.index.index import Index
from irgen.releases import merged_index, own_index

from ..tiny import untrained

SCHEMA = {"id": pl.String, "sha256": pl.String, "label": pl.String, "price": pl.Int64}


@pytest.fixture
def describe(png) -> Callable[..., pl.DataFrame]:
    """Return ids and metadata of images: ``describe({"id": number of its picture}, price=…)``."""

    def table(numbers: dict[str, int], label: str = "given", price: int = 0) -> pl.DataFrame:
        rows = [
            (name, hashlib.sha256(png(number)).hexdigest(), label, price)
            for name, number in numbers.items()
        ]
        return pl.DataFrame(rows, SCHEMA, orient="row")

    return table


@pytest.fixture
def serve(tmp_path: Path, make_index, png, describe) -> Callable[..., Path]:
    """Put an index of these images in the pipeline's folder, which is served."""

    def make(numbers: dict[str, int], items: pl.DataFrame | None = None, **config: int) -> Path:
        path = tmp_path / "data" / "index"
        shutil.rmtree(path, ignore_errors=True)
        table = describe(numbers) if items is None else items
        pictures = [png(number) for number in numbers.values()]
        return make_index(path, pictures, table, None, search={"beams": 600}, **config)

    return make


@pytest.fixture
def edit(tmp_path: Path, png, describe) -> Callable[..., None]:
    """Add or replace images of the own index, and keep their files."""

    def put(numbers: dict[str, int], label: str = "mine", price: int = 1) -> None:
        for number in numbers.values():
            store_upload(tmp_path, png(number))
        with own_index.open_writer(tmp_path) as index:
            index.upsert(
                [png(number) for number in numbers.values()],
                list(numbers),
                describe(numbers, label, price).drop("id"),
            )

    return put


def remove(root: Path, ids: Sequence[str]) -> None:
    with own_index.open_writer(root) as index:
        index.remove(ids)


def contents(root: Path) -> dict[str, tuple]:
    """Return the metadata of the project's own index by id."""
    with Index.open(root / "index") as index:
        index.verify()
        return as_rows(index.view.take(index.view.snapshot.alive_rows().numpy()))


def as_rows(table: pl.DataFrame) -> dict[str, tuple]:
    return {row[0]: row[1:] for row in table.rows()}


@pytest.fixture
def other_models(tmp_path: Path, tiny_sections: tuple) -> Callable[..., None]:
    """Serve images by another tokenizer; ``fresh`` is a copy of that index."""

    def make(serve: Callable, numbers: dict[str, int]) -> None:
        encoder, tokenizing, retrieving = tiny_sections
        models = untrained(encoder, tokenizing, retrieving)
        models.tokenizer.codebooks.mul_(1.5).add_(0.1)
        path = serve(numbers)
        with Index.open(path) as index:
            view = index.view
            rows = view.snapshot.alive_rows()
            vectors, items = view.snapshot.gather(rows, "embeddings"), view.take(rows.numpy())
        Index.create(
            path,
            models_writer=lambda to: save_models(to, models, encoder, tokenizing, retrieving),
            config={"search": {"beams": 600}},
            items=items,
            codebooks=models.tokenizer.codebooks,
            codes=models.tokenize(vectors.float()),
            embeddings=vectors,
            trained=torch.zeros(len(items), dtype=torch.bool),
            replace=True,
        )
        shutil.copytree(path, tmp_path / "fresh")

    return make


def test_edits_are_in_the_copy_of_the_next_release(tmp_path, serve, edit, describe):
    serve({"a": 0, "b": 1, "c": 2, "d": 3})
    edit({"new": 10, "b": 11})
    remove(tmp_path, ["c"])
    serve({"a": 20, "b": 21, "c": 22, "e": 4})
    assert own_index.needs_refresh(tmp_path)
    done = own_index.refresh(tmp_path)
    assert done is not None
    assert (done.put, done.removed, done.missing, done.dropped) == (2, 1, [], [])
    mine = as_rows(describe({"new": 10, "b": 11}, "mine", 1))
    assert contents(tmp_path) == as_rows(describe({"a": 20, "e": 4})) | mine
    assert own_index.refresh(tmp_path) is None
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".cache", "data", "index", "uploads",
    ]  # fmt: skip


def test_without_an_own_index_there_is_nothing_to_refresh(tmp_path, serve):
    serve({"a": 0})
    assert own_index.refresh(tmp_path) is None
    assert not (tmp_path / "index").exists()


def test_a_refresh_onto_the_same_images_changes_nothing(tmp_path, serve, edit, png):
    same = {"a": 0, "b": 1, "c": 2, "d": 3}
    serve(same)
    edit({"new": 10, "b": 11})
    remove(tmp_path, ["c"])
    with Index.open(tmp_path / "index") as index:
        index.save(tmp_path / "before")
        before = index.search([png(10), png(1)], 4).table()
    serve(same, queries=7)  # another configuration of the same images
    assert own_index.refresh(tmp_path) is not None
    with Index.open(tmp_path / "index") as index:
        assert index.folder.config["queries"] == 7
        assert index.search([png(10), png(1)], 4).table().equals(before)
        index.save(tmp_path / "after")
    assert checksums(tmp_path / "before" / "base") == checksums(tmp_path / "after" / "base")


def test_what_the_release_has_by_now_is_no_edit_any_more(tmp_path, serve, edit, describe):
    serve({"a": 0})
    edit({"new": 10, "a": 11}, label="given", price=0)
    serve({"a": 11, "new": 10})
    done = own_index.refresh(tmp_path)
    assert done is not None and (done.put, done.removed) == (0, 0)
    serve({"a": 12})
    assert own_index.refresh(tmp_path) is not None
    assert contents(tmp_path) == as_rows(describe({"a": 12}))


def test_a_removal_holds_although_the_release_has_another_picture(tmp_path, serve, describe):
    serve({"a": 0, "b": 1})
    remove(tmp_path, ["a"])
    for number in (20, 30):
        serve({"a": number, "b": 1})
        assert own_index.refresh(tmp_path) is not None
        assert contents(tmp_path) == as_rows(describe({"b": 1}))
    serve({"b": 1})
    own_index.refresh(tmp_path)
    serve({"a": 0, "b": 1})  # it was gone for a while, so it is a new image now
    own_index.refresh(tmp_path)
    assert contents(tmp_path) == as_rows(describe({"a": 0, "b": 1}))


def test_going_back_to_the_earlier_release_keeps_the_edits(tmp_path, serve, edit, describe):
    for numbers in ({"a": 0, "b": 1}, {"a": 2, "c": 3}, {"a": 0, "b": 1}):
        serve(numbers)
        own_index.refresh(tmp_path)
        if not own_index.exists(tmp_path):
            edit({"new": 10})
            remove(tmp_path, ["b"])
    mine = as_rows(describe({"new": 10}, "mine", 1))
    assert contents(tmp_path) == as_rows(describe({"a": 0, "b": 1})) | mine


def test_other_models_encode_the_kept_files_again(
    tmp_path, serve, edit, describe, png, other_models
):
    serve({"a": 0, "b": 1})
    edit({"new": 10, "b": 11})
    other_models(serve, {"a": 0, "b": 1, "c": 2})
    assert own_index.refresh(tmp_path) is not None
    expected = as_rows(describe({"a": 0, "c": 2})) | as_rows(
        describe({"new": 10, "b": 11}, "mine", 1)
    )
    assert contents(tmp_path) == expected
    with (
        Index.open(tmp_path / "index") as index,
        Index.open(tmp_path / "fresh", writable=True) as fresh,
    ):
        fresh.upsert(
            [png(10), png(11)], ["new", "b"], describe({"new": 10, "b": 11}, "mine", 1).drop("id")
        )
        for name in ("embeddings", "codes"):
            both = []
            for opened in (index, fresh):
                rows = torch.from_numpy(opened.view.find(["new", "b"]))
                both.append(opened.view.snapshot.gather(rows, name))
            assert torch.equal(*both)
        assert index.search([png(10)], 1).ids[0, 0] == "new"


@pytest.mark.parametrize("content", [None, b"no image"])
def test_an_image_whose_file_is_gone_stops_the_refresh_until_it_may_be_left_out(
    tmp_path, serve, edit, describe, other_models, content
):
    serve({"a": 0, "b": 1})
    edit({"new": 10, "newer": 11})
    remove(tmp_path, ["b"])
    before = contents(tmp_path)
    path = upload_path(tmp_path, describe({"new": 10})["sha256"][0])
    path.unlink()
    if content:
        with own_index.open_writer(tmp_path) as index:
            row = index.view.find(["new"])
            vectors = index.view.snapshot.gather(torch.from_numpy(row), "embeddings")
            about = pl.DataFrame({"sha256": [store_upload(tmp_path, content)]})
            index.upsert_encoded(vectors, ["new"], about)
            before = contents(tmp_path)
    other_models(serve, {"a": 0, "b": 1})
    with pytest.raises(IndexingError, match=r"1 of the images .* \(new: .*--drop-missing"):
        own_index.refresh(tmp_path)
    assert contents(tmp_path) == before
    assert sorted(path.name for path in tmp_path.glob(".index*")) == []
    done = own_index.refresh(tmp_path, drop_missing=True)
    assert done is not None and (done.missing, done.put, done.removed) == (["new"], 1, 1)
    assert contents(tmp_path) == as_rows(describe({"a": 0})) | as_rows(
        describe({"newer": 11}, "mine", 1)
    )


def test_columns_follow_the_release_and_those_that_it_lacks_are_named(
    tmp_path, serve, edit, describe
):
    serve({"a": 0})
    edit({"new": 10}, label="7", price=5)
    items = describe({"a": 0}).select(
        "id", "sha256", pl.lit(2.5).alias("price"), pl.lit(1).alias("label"), size=pl.lit("L")
    )
    serve({"a": 0}, items)
    done = own_index.refresh(tmp_path)
    assert done is not None and done.dropped == ["label"]
    with Index.open(tmp_path / "index") as index:
        table = index.view.take(index.view.find(["new"]))
    sha256 = describe({"new": 10})["sha256"][0]
    assert table.rows(named=True) == [
        {"id": "new", "sha256": sha256, "price": 5.0, "label": None, "size": None}
    ]


def test_images_without_a_checksum_are_edits_if_they_are_new(tmp_path, serve, png):
    serve({"a": 0}, pl.DataFrame({"id": ["a"]}))
    with own_index.open_writer(tmp_path) as index:
        index.add([png(10)], ["new"])
    serve({"a": 0, "b": 1}, pl.DataFrame({"id": ["a", "b"]}))
    done = own_index.refresh(tmp_path)
    assert done is not None and done.put == 1
    assert sorted(contents(tmp_path)) == ["a", "b", "new"]


def test_edits_that_come_while_it_is_built_are_carried_over_too(
    tmp_path, serve, edit, describe, monkeypatch
):
    serve({"a": 0, "b": 1, "c": 2})
    edit({"new": 10, "reverted": 12, "a": 13})
    serve({"a": 20, "b": 1, "c": 2})

    def lock_after_edits(path: Path, wait: float = 0.0):
        if path == tmp_path / "index" and wait == merged_index.WRITER_SECONDS:
            edit({"late": 11, "b": 14})
            edit({"a": 0}, "given", 0)  # as it was
            remove(tmp_path, ["reverted", "c"])
        return lock(path, wait)

    lock = folder.lock
    monkeypatch.setattr(folder, "lock", lock_after_edits)
    done = own_index.refresh(tmp_path)
    monkeypatch.undo()
    assert done is not None and (done.put, done.removed) == (3, 1)
    assert contents(tmp_path) == as_rows(describe({"a": 20})) | as_rows(
        describe({"new": 10, "late": 11, "b": 14}, "mine", 1)
    )


def test_while_it_is_built_a_writer_is_waited_for_and_only_one_refresh_runs(tmp_path, serve, edit):
    serve({"a": 0})
    edit({"new": 10})
    serve({"a": 0, "b": 1})
    results = []
    with own_index.open_writer(tmp_path):
        threads = [
            Thread(target=lambda: results.append(own_index.refresh(tmp_path))) for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        time.sleep(0.3)
        assert own_index.needs_refresh(tmp_path) and not results
    for thread in threads:
        thread.join(60)
    assert sorted(done is None for done in results) == [False, True]


def test_a_copy_of_an_earlier_version_is_named_and_left_as_it_is(tmp_path, serve, edit):
    serve({"a": 0})
    edit({"new": 10})
    (tmp_path / "index" / copying.SOURCE).unlink()
    serve({"a": 0, "b": 1})
    with pytest.raises(IndexingError, match="was made by an earlier irgen"):
        own_index.refresh(tmp_path)
    assert sorted(contents(tmp_path)) == ["a", "new"]


def test_files_of_images_that_are_gone_are_deleted(tmp_path, serve, edit, describe, png):
    serve({"a": 0})
    edit({"new": 10, "gone": 11})
    remove(tmp_path, ["gone"])
    hashes = describe({"new": 10, "gone": 11})["sha256"]
    for sha256 in hashes:
        os.utime(upload_path(tmp_path, sha256), (0, 0))
    serve({"a": 0, "b": 1})
    own_index.refresh(tmp_path)
    assert [read_upload(tmp_path, sha256) for sha256 in hashes] == [png(10), None]
