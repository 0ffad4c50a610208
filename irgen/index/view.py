"""A view: all images of an index at one moment. It never changes, so a search sees one state."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import polars as pl
import torch
from torch import Tensor

from irgen.errors import IndexingError
from irgen.index import metadata
from irgen.index.base_files import Base
from irgen.index.database import Change
from irgen.index.metadata import ID
from irgen.index.rows import Rows, hash_ids, shorten
from irgen.search.snapshot import Segment, Snapshot


@dataclass(frozen=True)
class View:
    """A base and what changed since, up to the change number ``revision``.

    Rows are numbered as in ``snapshot``: those of the base, then those ``added`` since, in order of
    arrival, ``added_keys`` (n,) int64 being their keys. Rows of images that were removed or
    replaced keep their numbers, but are not alive.
    """

    base: Base
    snapshot: Snapshot
    added: pl.DataFrame
    added_keys: np.ndarray
    revision: int

    @classmethod
    def of(cls, base: Base, codebooks: Tensor) -> "View":
        """Return the view of a base alone."""
        alive = torch.ones(len(base.segment), dtype=torch.bool)
        snapshot = Snapshot.build((base.segment,), (alive,), codebooks)
        return cls(base, snapshot, base.table.clear(), base.keys[:0], 0)

    def __len__(self) -> int:
        """Images in the index."""
        return len(self.snapshot)

    @property
    def is_compact(self) -> bool:
        """True if nothing was added or removed since the base was written."""
        return not len(self.added) and len(self) == self.snapshot.rows

    @property
    def dead_added(self) -> int:
        """Rows that were added since the base was written, and removed or replaced again."""
        return len(self.added) - sum(map(len, self.snapshot.live_tries[1:]))

    @property
    def schema(self) -> pl.Schema:
        """Return the metadata columns and their types."""
        columns = self.base.table.schema.items()
        return pl.Schema({name: kind for name, kind in columns if name != ID})

    @cached_property
    def table(self) -> pl.DataFrame:
        """Id and metadata of every row, dead ones included."""
        return pl.concat([self.base.table, self.added], rechunk=False)

    def all_ids(self) -> list[str]:
        """Return the ids of all images, in order of row."""
        return self.ids(self.snapshot.alive_rows().numpy())

    def ids(self, rows: np.ndarray) -> list[str]:
        """Return the ids of rows (n,)."""
        return self.take(rows, [ID])[ID].to_list()

    def take(self, rows: np.ndarray, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """Return id and metadata, or the given ``columns``, of rows (n,), in their order."""
        names = columns or self.added.columns
        late = rows >= len(self.base.keys)
        if not late.any():
            return self.base.table.select(names)[rows]
        parts = self.base.table.select(names)[rows[~late]], self.added.select(names)
        positions = np.empty(len(rows), np.int64)  # of each row in the parts together
        positions[~late] = np.arange(len(parts[0]))
        positions[late] = rows[late] - len(self.base.keys) + len(parts[0])
        return pl.concat(parts)[positions]

    def find(self, ids: Sequence[str]) -> np.ndarray:
        """Return the row (n,) int64 of each id, −1 where it is not in the index."""
        rows = self.find_keys(hash_ids(ids))
        names = iter(self.ids(rows[rows >= 0]))
        for i in np.flatnonzero(rows >= 0).tolist():
            if next(names) != ids[i]:
                rows[i] = -1
        return rows

    def find_existing(self, ids: Sequence[str]) -> np.ndarray:
        """Return the row (n,) int64 of each id. Raise IndexingError if one is not in the index."""
        if isinstance(ids, str):
            raise IndexingError(f"ids are a list of strings, not the one string {ids!r}")
        rows = self.find(ids)
        if (rows < 0).any():
            missing = [name for name, row in zip(ids, rows, strict=True) if row < 0]
            raise IndexingError(f"not in the index: {shorten(missing)}")
        return rows

    def find_keys(self, keys: np.ndarray) -> np.ndarray:
        """Return the row (n,) int64 alive with each key, −1 where there is none."""
        rows = self.base.find(keys)
        ordered, order = self._ordered_keys
        if len(ordered):
            latest = np.searchsorted(ordered, keys, side="right") - 1  # of equal keys, the last
            exists = (latest >= 0) & (ordered[latest] == keys)
            rows[exists] = order[latest[exists]] + len(self.base.keys)
        alive = np.concatenate([part.numpy() for part in self.snapshot.alive])
        if len(alive):
            rows[~alive[rows]] = -1
        return rows

    @cached_property
    def _ordered_keys(self) -> tuple[np.ndarray, np.ndarray]:
        """``added_keys`` in ascending order, and that order."""
        order = np.argsort(self.added_keys, kind="stable")
        return self.added_keys[order], order

    def gather(self, rows: np.ndarray) -> Rows:
        """Return rows (n,), in their order, but without embeddings, which are (0, D)."""
        numbers = torch.from_numpy(rows)
        return Rows(
            table=self.take(rows),
            keys=self.snapshot.gather(numbers, "keys").numpy(),
            codes=self.snapshot.gather(numbers, "codes"),
            embeddings=self.base.segment.embeddings[:0],
            trained=self.snapshot.gather(numbers, "trained"),
        )

    def apply(self, changes: Sequence[Change], revision: int) -> "View":
        """Return the view after ``changes``, up to the change number ``revision``. Time: a few
        passes over the rows of the base if one of them is replaced or removed, and one sort of all
        that was added."""
        snapshot, rows = self.snapshot, self._parse(changes)
        dead = self.find_keys(np.array([change.key for change in changes], np.int64))
        if (dead >= 0).any():
            snapshot = snapshot.without(torch.from_numpy(dead[dead >= 0]))
        view = replace(self, snapshot=snapshot, revision=revision)
        if not len(rows):
            return view
        return replace(
            view,
            snapshot=snapshot.with_added(_extend(snapshot, rows)),
            added=pl.concat([self.added, rows.table], rechunk=True),
            added_keys=np.concatenate([self.added_keys, rows.keys]),
        )

    def _parse(self, changes: Sequence[Change]) -> Rows:
        """Return those of the changed images that are in the index, in order of arrival."""
        present = [change for change in changes if change.code is not None]
        keys, ids, codes, vectors, texts, _ = zip(*present, strict=True) if present else [()] * 6
        segment = self.base.segment
        code_table, vector_table = (
            np.frombuffer(b"".join(parts), old.numpy().dtype).reshape(-1, old.shape[1]).copy()
            for parts, old in ((codes, segment.codes), (vectors, segment.embeddings))
        )
        return Rows(
            table=metadata.from_json(ids, texts, self.schema),
            keys=np.array(keys, np.int64),
            codes=torch.from_numpy(code_table),
            embeddings=torch.from_numpy(vector_table),
            trained=torch.zeros(len(present), dtype=torch.bool),
        )


def _extend(snapshot: Snapshot, rows: Rows) -> Segment:
    """Return the second segment of ``snapshot`` with ``rows`` at its end."""
    new = (rows.codes, rows.embeddings, torch.from_numpy(rows.keys), rows.trained)
    for old in snapshot.segments[1:]:
        before = (old.codes, old.embeddings, old.keys, old.trained)
        codes, embeddings, keys, trained = map(torch.cat, zip(before, new, strict=True))
        return Segment.build(codes, embeddings, keys, trained)
    return Segment.build(*new)
