"""Rows by content hash are those of a dict, in sorted arrays."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from irgen.files import hash_rows
from irgen.files.hash_rows import HashRows, pack_hashes

NONE = pack_hashes([])
ENDS = ("", "00", "0000", "61", "6100", "ff")  # null bytes at the end are part of a hash
HASHES = st.sampled_from([end.rjust(64, "0") for end in ENDS] + [e.ljust(64, "0") for e in ENDS])


def sha(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


@given(st.lists(st.lists(HASHES, max_size=5), max_size=4), st.lists(HASHES))
def test_they_are_a_mapping_to_the_first_of_equal_hashes(
    added: list[list[str]], asked: list[str]
) -> None:
    rows, expected = HashRows(NONE), {}
    for number, sha256 in enumerate(chain.from_iterable(added)):
        expected.setdefault(sha256, number)
    for sha256s in added:
        rows.add(pack_hashes(sha256s))
    assert rows.find(pack_hashes(asked)).tolist() == [expected.get(sha256, -1) for sha256 in asked]
    assert len(rows) == len(expected)


def test_none_and_a_single_one_are_looked_up() -> None:
    nothing, single = HashRows(NONE), HashRows(pack_hashes([sha(1)]))
    assert nothing.find(pack_hashes([sha(1)])).tolist() == [-1]
    assert single.find(pack_hashes([sha(1), sha(2), sha(1)])).tolist() == [0, -1, 0]
    assert single.find(NONE).tolist() == [] and len(nothing) == 0 and len(single) == 1


def test_threads_look_up_at_once() -> None:
    keys = pack_hashes([sha(number) for number in range(500)])
    rows = HashRows(keys)
    with ThreadPoolExecutor(8) as pool:
        looked_up = list(pool.map(lambda number: int(rows.find(keys[number, None])[0]), range(500)))
    assert looked_up == [*range(500)]


def test_a_list_and_a_column_are_packed_alike_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hash_rows, "CHUNK", 3)
    sha256s = [sha(number) for number in range(10)]
    expected = np.frombuffer(bytes.fromhex("".join(sha256s)), hash_rows.DTYPE)
    for hashes in (sha256s, pl.Series(sha256s)):
        assert (pack_hashes(hashes) == expected).all()


@pytest.mark.parametrize("text", ["", "sha9", "aa" * 31, "g" * 64])
def test_what_is_no_hash_is_an_error(text: str) -> None:
    with pytest.raises(ValueError):
        pack_hashes([sha(1), text])
