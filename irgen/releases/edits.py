"""Edits: how a project's own index differs from what it was copied from, and what of that is still
to be done in another index. It is a three-way merge, as of versions of a file.

*base* is the source at the time of the copy, *ours* the own index now, *theirs* what is served now.
Tables have ``id`` and metadata columns; base and ours have the same ones.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl

from irgen.errors import IndexingError
from irgen.index import metadata
from irgen.index.metadata import ID
from irgen.index.view import View

SHA256 = "sha256"


@dataclass(frozen=True)
class Edits:
    """Images that people changed. ``added`` and ``replaced`` are row numbers (n,) in ours,
    ``removed`` the ids that only base has. An image is replaced if its content or any metadata
    differs."""

    added: np.ndarray
    replaced: np.ndarray
    removed: list[str]


def find_edits(base: pl.DataFrame, ours: pl.DataFrame) -> Edits:
    """Return the edits that made ``ours`` of ``base``. Time: two joins, and one pass over each
    column."""
    pairs = _number(ours, "ours").join(_number(base, "base"), on=ID, how="full", coalesce=True)
    both = pairs.drop_nulls()
    rows, base_rows = both["ours"].to_numpy(), both["base"].to_numpy()
    is_same = equal_rows(ours.drop(ID), base.drop(ID), rows, base_rows)
    return Edits(
        added=np.sort(pairs.filter(pl.col("base").is_null())["ours"].to_numpy()),
        replaced=np.sort(rows[~is_same]),
        removed=pairs.filter(pl.col("ours").is_null())[ID].to_list(),
    )


def _number(table: pl.DataFrame, name: str) -> pl.DataFrame:
    return table.select(ID).with_row_index(name)


def equal_rows(
    first: pl.DataFrame, second: pl.DataFrame, first_rows: np.ndarray, second_rows: np.ndarray
) -> np.ndarray:
    """Tell (n,) of each pair of rows (n,) whether all columns are equal. Two nulls are equal, and
    so are two NaNs. Both tables have the columns of ``first``."""
    is_same = np.ones(len(first_rows), bool)
    for name in first.columns:
        left, right = first[name].gather(first_rows), second[name].gather(second_rows)
        is_same &= left.eq_missing(right).to_numpy()
    return is_same


@dataclass(frozen=True)
class Merge:
    """Edits as they are to be made in theirs. ``put``: ids and metadata of images that are added or
    replaced, in the columns of theirs; ``rows`` (n,) are their rows in the view of ours.
    ``removed``: ids of images that go. ``dropped``: columns of ours that theirs does not have, or
    with another type."""

    put: pl.DataFrame
    rows: np.ndarray
    removed: list[str]
    dropped: list[str]

    @property
    def ids(self) -> set[str]:
        """Return the ids of all images that it changes."""
        return {*self.put[ID], *self.removed}


def merge(base: pl.DataFrame, ours: View, theirs: View) -> Merge:
    """Return what is to be done in ``theirs``, so that it has the edits that made ``ours`` of
    ``base``. An image that theirs has with the same content and metadata needs nothing."""
    alive = ours.snapshot.alive_rows().numpy()
    table = ours.take(alive)
    edits = find_edits(base, table)
    chosen = np.concatenate([edits.added, edits.replaced])
    put, dropped = fit(table[chosen], theirs.schema)
    is_open = ~holds(theirs, put)
    rows = theirs.find(edits.removed)
    removed = [name for name, row in zip(edits.removed, rows, strict=True) if row >= 0]
    return Merge(put.filter(is_open), alive[chosen][is_open], removed, dropped)


def holds(view: View, table: pl.DataFrame) -> np.ndarray:
    """Tell (n,) of each image of ``table`` whether ``view`` has it with the same content and
    metadata. Without a SHA-256 nobody knows that contents are the same."""
    rows = view.find(table[ID].to_list())
    if SHA256 not in table.columns:
        return np.zeros(len(table), bool)
    chosen = np.flatnonzero((rows >= 0) & table[SHA256].is_not_null().to_numpy())
    is_held = np.zeros(len(table), bool)
    own = view.take(rows[chosen])
    is_held[chosen] = equal_rows(table, own, chosen, np.arange(len(chosen)))
    return is_held


def fit(table: pl.DataFrame, schema: pl.Schema) -> tuple[pl.DataFrame, list[str]]:
    """Return ``table`` in the metadata columns of ``schema``, with null for those that it lacks;
    and the names of its columns that are not in the result: unknown, or of a type that does not
    fit."""
    columns, dropped = list[pl.Series](), list[str]()
    for name in table.drop(ID).columns:
        try:
            (column,) = metadata.complete(
                table.select(name), table.height, pl.Schema({name: schema[name]})
            )
            columns.append(column)
        except (KeyError, IndexingError):
            dropped.append(name)
    kept = metadata.join_columns(columns) if columns else None
    completed = metadata.complete(kept, table.height, schema)
    return metadata.join_columns([table[ID], *completed.get_columns()]), dropped
