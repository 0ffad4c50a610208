"""A folder that is not what was written is refused, and the file is named."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from irgen.errors import IndexingError
from irgen.index import base_files
from irgen.index.index import Index

from .conftest import NAMES, list_names

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
    assert list_names(folder.parent) == ["index"]
    assert list_names(folder / "base") == ["1"]
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
