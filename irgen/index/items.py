"""Ids and their keys, and the table of what an index holds: from ids to rows and back.

A key is a hash of an id. Whatever has to break a tie does it by key, and rows are stored in order
of key, so that nothing depends on the order in which images came.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

from irgen.errors import IndexingError
from irgen.index import metadata
from irgen.index.metadata import ID


def keys_of(ids: Iterable[str]) -> np.ndarray:
    """The keys (n,) int64 of ids, never negative: the first 8 bytes of BLAKE2b, big-endian, without
    the last bit.

    >>> keys_of(["a cat", "a dog"])
    array([6189685321240930555, 2319119973058196390])
    """
    hashes = (hashlib.blake2b(i.encode()).digest()[:8] for i in ids)
    return (np.frombuffer(b"".join(hashes), ">u8") >> np.uint64(1)).astype(np.int64)


def checked_ids(ids: Sequence[str]) -> list[str]:
    """``ids`` as a list. Raises IndexingError unless they are non-empty, distinct strings."""
    if isinstance(ids, str):
        raise IndexingError(f"ids are a list of strings, not the one string {ids!r}")
    found = list(ids)
    for number, name in enumerate(found):
        if not isinstance(name, str) or not name:
            raise IndexingError(f"id {number} is {name!r}: an id is a string that is not empty")
    try:
        "".join(found).encode()
    except UnicodeEncodeError as error:
        raise IndexingError(f"an id is not proper text: {error}") from None
    if len(set(found)) < len(found):
        seen: set[str] = set()
        twice = [name for name in found if name in seen or seen.add(name)]  # type: ignore[func-returns-value]
        raise IndexingError(f"given twice: {some(twice)}; an id stands for one image")
    return found


def checked_items(given: pl.DataFrame) -> pl.DataFrame:
    """Ids and metadata of a new index, id first. Raises IndexingError if there is no id column, an
    id is no good, or a column is of a type that is not kept."""
    if ID not in given.columns:
        raise IndexingError(f"items have no column {ID!r} (they have {', '.join(given.columns)})")
    names = checked_ids(given[ID].to_list())
    return metadata.columns(given).insert_column(0, pl.Series(ID, names, dtype=pl.String))


def distinct_keys(ids: Sequence[str]) -> np.ndarray:
    """``keys_of`` distinct ids. Raises IndexingError if two of them have one key."""
    keys = keys_of(ids)
    order = np.argsort(keys, kind="stable")
    same = np.flatnonzero(keys[order][1:] == keys[order][:-1])
    if len(same):
        raise clash(ids[order[same[0]]], ids[order[same[0] + 1]])
    return keys


def clash(one: str, other: str) -> IndexingError:
    """The error of two ids with one key, of which there is one pair in 10¹⁰ among 30,000 ids."""
    return IndexingError(f"ids {one!r} and {other!r} have the same 63-bit hash: rename one of them")


def some(ids: Sequence[str], shown: int = 3) -> str:
    """The first few ids, for a message.

    >>> some(["a", "b", "c", "d", "e"])
    "'a', 'b', 'c' and 2 more"
    """
    more = f" and {len(ids) - shown:,} more" if len(ids) > shown else ""
    return ", ".join(map(repr, ids[:shown])) + more


@dataclass(frozen=True)
class Items:
    """Ids and metadata of every row, dead ones included: those of the base, in order of key, then
    those added since, in order of arrival.

    ``base`` and ``added``: ``id`` and the metadata columns. ``keys`` (n₀,) int64 ascending, of the
    base; ``late`` (n₁,) int64 ascending, the keys of those added, and ``order`` (n₁,) int64, which
    of them each is; of equal keys the last to arrive comes last.
    """

    base: pl.DataFrame
    keys: np.ndarray
    added: pl.DataFrame
    late: np.ndarray
    order: np.ndarray

    @classmethod
    def of(cls, base: pl.DataFrame, keys: np.ndarray) -> "Items":
        """The items of a base to which nothing has been added."""
        return cls(base, keys, base.clear(), keys[:0], keys[:0])

    @property
    def schema(self) -> pl.Schema:
        """The metadata columns and their types."""
        return pl.Schema({name: kind for name, kind in self.base.schema.items() if name != ID})

    @cached_property
    def frame(self) -> pl.DataFrame:
        """All rows; row numbers are the snapshot's."""
        return pl.concat([self.base, self.added], rechunk=False)

    def with_added(self, items: pl.DataFrame, keys: np.ndarray) -> "Items":
        """With rows at the end; ``keys`` (n,) are theirs."""
        arrived = np.empty(len(self.late) + len(keys), np.int64)
        arrived[self.order], arrived[len(self.order) :] = self.late, keys
        order = np.argsort(arrived, kind="stable")
        added = pl.concat([self.added, items], rechunk=True)
        return Items(self.base, self.keys, added, arrived[order], order)

    def newest(self, keys: np.ndarray) -> np.ndarray:
        """The last row (n,) int64 to arrive with each key, −1 where there is none. If any row with
        that key is alive, it is this one."""
        rows = np.full(len(keys), -1, np.int64)
        for known, numbers in ((self.keys, None), (self.late, self.order + len(self.keys))):
            if len(known):
                places = np.searchsorted(known, keys, side="right") - 1
                found = (places >= 0) & (known[places] == keys)
                rows[found] = places[found] if numbers is None else numbers[places[found]]
        return rows

    def ids(self, rows: np.ndarray) -> list[str]:
        """The ids of rows (n,)."""
        return self.take(rows, [ID])[ID].to_list()

    def take(self, rows: np.ndarray, names: Sequence[str] | None = None) -> pl.DataFrame:
        """Id and metadata (or the columns ``names``) of rows (n,), in their order."""
        base, added = (
            (self.base, self.added)
            if names is None
            else (self.base.select(names), self.added.select(names))
        )
        late = rows >= len(self.keys)
        if not late.any():
            return base[rows]
        parts = pl.concat([base[rows[~late]], added[rows[late] - len(self.keys)]])
        back = np.empty(len(rows), np.int64)
        back[np.concatenate([np.flatnonzero(~late), np.flatnonzero(late)])] = np.arange(len(rows))
        return parts[back]
