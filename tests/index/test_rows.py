"""Ids and their keys."""

import hashlib

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from irgen.errors import IndexingError
from irgen.index import rows
from irgen.index.rows import check_ids, hash_distinct, hash_ids

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)


@given(st.lists(NAMES, max_size=5))
def test_a_key_is_the_first_63_bits_of_blake2b(names: list[str]) -> None:
    keys = hash_ids(names)
    assert keys.dtype == np.int64
    assert keys.shape == (len(names),)
    for key, name in zip(keys.tolist(), names, strict=True):
        assert key == int(hashlib.blake2b(name.encode()).hexdigest()[:16], 16) >> 1


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ("abc", "not the one string 'abc'"),
        (["a", ""], "id 1 is ''"),
        (["a", None], "id 1 is None"),
        ([1], "id 0 is 1"),
        (["\ud800"], "not valid text"),
        (["a", "b", "a", "c", "b"], "given twice: 'a', 'b'"),
    ],
)
def test_ids_that_are_none_are_refused(ids: list, message: str) -> None:
    with pytest.raises(IndexingError, match=message):
        check_ids(ids)


def test_ids_may_come_as_any_sequence() -> None:
    assert check_ids(pl.Series(["b", "a"])) == check_ids(np.array(["b", "a"])) == ["b", "a"]


def test_two_ids_of_one_key_are_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "hash_ids", lambda ids: np.array([len(i) for i in ids]))
    with pytest.raises(IndexingError, match="'ab' and 'cd' have the same 63-bit hash: rename"):
        hash_distinct(["a", "ab", "cd"])
    assert hash_distinct(["abc", "a"]).tolist() == [3, 1]
