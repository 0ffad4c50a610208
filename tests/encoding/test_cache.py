"""Arrays by content hash, in shards that appear whole."""

import errno
import hashlib
import os
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irgen.encoding import cache
from irgen.encoding.cache import ArrayStore
from irgen.errors import ArtifactError


def sha(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def hashes(*numbers: int) -> list[str]:
    return [sha(number) for number in numbers]


def values(*numbers: int, dtype: type = np.float32) -> np.ndarray:
    return np.array([[n, -n] for n in numbers], dtype).reshape(len(numbers), 2)


def test_values_come_back_row_aligned_also_to_another_reader(tmp_path: Path) -> None:
    store, reader = ArrayStore(tmp_path / "new"), ArrayStore(tmp_path / "new")
    assert store.missing(hashes(1, 2, 1)) == [0, 1]
    store.add(hashes(1, 2), values(1, 2))
    store.add(hashes(3), values(3))
    for one in (store, reader, ArrayStore(tmp_path / "new")):
        assert one.missing(hashes(3, 4, 1, 5)) == [1, 3]
        assert (one.get(hashes(3, 1, 3, 2)) == values(3, 1, 3, 2)).all()


@settings(deadline=None, max_examples=25)
@given(st.lists(st.lists(st.integers(0, 9), max_size=6), max_size=5), st.lists(st.integers(0, 9)))
def test_a_store_is_a_mapping(tmp_path_factory, added: list[list[int]], asked: list[int]) -> None:
    store = ArrayStore(tmp_path_factory.mktemp("store"))
    stored: set[int] = set()
    for numbers in added:
        store.add(hashes(*numbers), values(*numbers))
        stored.update(numbers)
    expected = [i for i, n in enumerate(asked) if n not in stored and n not in asked[:i]]
    assert store.missing(hashes(*asked)) == expected
    there = [n for n in asked if n in stored]
    if stored:
        assert (store.get(hashes(*there)) == values(*there)).all()


def test_arrays_come_from_many_shards_in_any_order(tmp_path: Path) -> None:
    store, draw = ArrayStore(tmp_path), random.Random(0)
    for start in range(0, 60, 3):
        store.add(hashes(*range(start, start + 3)), values(*range(start, start + 3)))
    asked = draw.choices(range(60), k=200)
    for reader in (store, ArrayStore(tmp_path)):
        assert (reader.get(pl.Series(hashes(*asked))) == values(*asked)).all()
        assert reader.missing(pl.Series(hashes(60, *asked, 60))) == [0]


def test_blocks_are_the_whole_array(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ArrayStore(tmp_path)
    assert list(store.blocks([])) == []
    store.add(hashes(*range(10)), values(*range(10)))
    monkeypatch.setattr(cache, "ROWS", 4)
    blocks = list(store.blocks(hashes(*range(10), 3)))
    assert [len(block) for block in blocks] == [4, 4, 3]
    assert (np.concatenate(blocks) == values(*range(10), 3)).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.uint8, np.int32])
def test_dtype_and_shape_are_kept(tmp_path: Path, dtype: type) -> None:
    store = ArrayStore(tmp_path)
    grids = np.arange(24).reshape(2, 3, 4).astype(dtype)
    store.add(hashes(1, 2), grids)
    arrays = ArrayStore(tmp_path).get(hashes(2, 1))
    assert arrays.dtype == dtype and (arrays == grids[::-1]).all()
    assert store.get([]).shape == (0, 3, 4)


def test_nothing_is_stored_twice(tmp_path: Path) -> None:
    store = ArrayStore(tmp_path)
    store.add(hashes(1), values(1))
    store.add(hashes(1, 2, 2), values(7, 2, 9))
    store.add(hashes(1, 2), values(7, 7))
    assert (store.get(hashes(1, 2)) == values(1, 2)).all()
    assert len(list(tmp_path.iterdir())) == 2


def test_what_is_not_there_or_does_not_fit_is_a_clear_error(tmp_path: Path) -> None:
    store = ArrayStore(tmp_path)
    assert store.get([]).shape == (0,)
    with pytest.raises(ArtifactError, match="has no array for image"):
        store.get(hashes(1))
    store.add(hashes(1), values(1))
    with pytest.raises(ArtifactError, match="delete it and run again"):
        store.add(hashes(2), np.zeros((1, 3), np.float32))


@pytest.mark.parametrize("keep", [0, 4, 30, -1])
def test_a_damaged_shard_is_passed_over_with_a_warning(tmp_path: Path, keep: int) -> None:
    ArrayStore(tmp_path).add(hashes(1), values(1))
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:keep])
    store = ArrayStore(tmp_path)
    with pytest.warns(UserWarning, match="skipped"):
        assert store.missing(hashes(1)) == [0]
    store.add(hashes(1), values(1))
    assert (store.get(hashes(1)) == values(1)).all()


def test_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: ArrayStore(tmp_path).add(hashes(n), values(n)), range(40)))
    assert (ArrayStore(tmp_path).get(hashes(*range(40))) == values(*range(40))).all()


def test_a_large_array_is_mapped_to_a_file_that_goes_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ArrayStore(tmp_path)
    store.add(hashes(1, 2, 3), values(1, 2, 3))
    files = sorted(tmp_path.iterdir())
    small = store.get(hashes(3, 1))
    monkeypatch.setattr(cache, "LARGE", small.nbytes - 1)
    large = store.get(hashes(3, 1))
    assert isinstance(large, np.memmap) and not isinstance(small, np.memmap)
    assert large.dtype == small.dtype and (large == small).all()
    assert sorted(tmp_path.iterdir()) == files


def test_a_large_array_that_the_disk_cannot_hold_is_an_error_and_no_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(file: int, start: int, size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    store = ArrayStore(tmp_path)
    store.add(hashes(1), values(1))
    monkeypatch.setattr(cache, "LARGE", 0)
    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(OSError, match="No space left"):
        store.get(hashes(1))
