"""What an index holds at one moment, and what it holds after some records more."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from irgen.errors import IndexingError
from irgen.index.generation import Generation
from irgen.index.items import Items, keys_of, some
from irgen.index.log import Position
from irgen.index.records import Removal
from irgen.index.rows import Rows
from irgen.search.snapshot import Segment, Snapshot


@dataclass(frozen=True)
class View:
    """A generation and what its log has done to it up to ``position``. Never changed; whoever
    searches one is not disturbed by what comes after."""

    generation: Generation
    snapshot: Snapshot
    items: Items
    position: Position

    @classmethod
    def of(cls, generation: Generation, codebooks: Tensor, position: Position) -> "View":
        """A generation as it was written."""
        base = generation.segment
        snapshot = Snapshot.of((base,), (torch.ones(len(base), dtype=torch.bool),), codebooks)
        return cls(generation, snapshot, Items.of(generation.items, generation.keys), position)

    def with_key(self, keys: np.ndarray) -> np.ndarray:
        """The row (n,) int64 alive with each key, −1 where there is none."""
        rows = self.items.newest(keys)
        alive = np.concatenate([part.numpy() for part in self.snapshot.alive])  # on this thread
        if len(alive):
            rows[~alive[rows]] = -1
        return rows

    def find(self, ids: Sequence[str], keys: np.ndarray | None = None) -> np.ndarray:
        """The row (n,) int64 of each id, −1 where it is not in the index."""
        rows = self.with_key(keys_of(ids) if keys is None else keys)
        there = np.flatnonzero(rows >= 0).tolist()
        names = self.items.ids(rows[there])
        other = [i for i, name in zip(there, names, strict=True) if name != ids[i]]
        rows[other] = -1
        return rows

    def existing(self, ids: Sequence[str]) -> np.ndarray:
        """The row (n,) int64 of each id. Raises IndexingError if one is not in the index."""
        if isinstance(ids, str):
            raise IndexingError(f"ids are a list of strings, not the one string {ids!r}")
        rows = self.find(ids)
        if (rows < 0).any():
            missing = [name for name, row in zip(ids, rows, strict=True) if row < 0]
            raise IndexingError(f"not in the index: {some(missing)}")
        return rows

    def gather(self, rows: np.ndarray) -> Rows:
        """All there is of rows (n,), in their order, but for the embeddings, which are (0, D)."""
        numbers = torch.from_numpy(rows)
        return Rows(
            items=self.items.take(rows),
            keys=self.snapshot.gather(numbers, "keys").numpy(),
            codes=self.snapshot.gather(numbers, "codes"),
            embeddings=self.snapshot.segments[0].embeddings[:0],
            trained=self.snapshot.gather(numbers, "trained"),
        )


def after(view: View, records: Sequence[Rows | Removal], position: Position) -> View:
    """The view when ``records`` have been applied, one after the other, up to ``position``.

    Images that come take the place of those of their ids. Time: a few passes over the rows of the
    base if any of them goes, and one sort of all that was added.
    """
    keys = np.concatenate([r.keys for r in records]) if records else np.empty(0, np.int64)
    if not len(keys):
        return View(view.generation, view.snapshot, view.items, position)
    snapshot, items = view.snapshot, view.items
    gone = view.with_key(keys)
    if (gone >= 0).any():
        snapshot = snapshot.without(torch.from_numpy(gone[gone >= 0]))
    new = _surviving(records, keys)
    if new is not None:
        snapshot = snapshot.with_added(_extended(snapshot, new))
        items = items.with_added(new.items, new.keys)
    return View(view.generation, snapshot, items, position)


def _surviving(records: Sequence[Rows | Removal], keys: np.ndarray) -> Rows | None:
    """The images that came and neither went nor were replaced in the same records, in order."""
    places = np.unique(keys[::-1], return_index=True)[1]
    last = np.zeros(len(keys), bool)
    last[len(keys) - 1 - places] = True
    kept, start = [], 0
    for record in records:
        mine = np.flatnonzero(last[start : start + len(record)])
        start += len(record)
        if isinstance(record, Rows) and len(mine):
            kept.append(record if len(mine) == len(record) else record.take(mine))
    return Rows.joined(kept) if kept else None


def _extended(snapshot: Snapshot, new: Rows) -> Segment:
    """The second segment with ``new`` rows at its end."""
    parts = (new.codes, new.embeddings, torch.from_numpy(new.keys), new.trained)
    for known in snapshot.segments[1:]:
        before = (known.codes, known.embeddings, known.keys, known.trained)
        codes, embeddings, keys, trained = map(torch.cat, zip(before, parts, strict=True))
        return Segment.build(codes, embeddings, keys, trained)
    return Segment.build(*parts)
