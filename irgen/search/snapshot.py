"""Hold the state of an index at one moment, immutable, so that a search sees one state."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from irgen.search import live, trie
from irgen.search.live import LiveTrie
from irgen.search.trie import Trie


@dataclass(frozen=True)
class Segment:
    """Some images of an index, row by row, and the trie over their codes.

    ``codes`` (n, M) integers; ``embeddings`` (n, D) floats, unit vectors; ``keys`` (n,) int64, the
    hashes of their ids, which break ties; ``trained`` (n,) bool: the retriever was trained on the
    image.
    """

    trie: Trie
    codes: Tensor
    embeddings: Tensor
    keys: Tensor
    trained: Tensor

    @classmethod
    def build(cls, codes: Tensor, embeddings: Tensor, keys: Tensor, trained: Tensor) -> "Segment":
        """Build a segment of rows in any order; within a code group its trie sorts them by key."""
        assert len(codes) == len(embeddings) == len(keys) == len(trained), "one row an image"
        return cls(trie.build(codes, keys), codes, embeddings, keys, trained)

    def __len__(self) -> int:
        return len(self.keys)

    def to(self, device: torch.device) -> "Segment":
        """Return the segment with its arrays on ``device``."""
        columns = (self.codes, self.embeddings, self.keys, self.trained)
        return Segment(self.trie.to(device), *(column.to(device) for column in columns))


class LivePart(NamedTuple):
    """A segment's rows that take part in a search; ``first_row``: the number of its row 0."""

    first_row: int
    live: LiveTrie


@dataclass(frozen=True)
class Snapshot:
    """Segments of an index, and which of their rows are alive.

    The first segment is the base; a second one holds the images added since. Rows are numbered
    through the segments: row 0 of the second follows the last row of the first. ``alive``: one (n,)
    bool a segment. ``codebooks`` (M, L, D) are the tokenizer's. Methods change nothing in place;
    they return new snapshots that share what did not change. *Fresh* rows are those that the
    retriever was not trained on.
    """

    segments: tuple[Segment, ...]
    alive: tuple[Tensor, ...]
    codebooks: Tensor
    live_tries: tuple[LiveTrie, ...]  # rows alive
    fresh_tries: tuple[LiveTrie, ...]  # rows alive and fresh

    @classmethod
    def build(
        cls, segments: tuple[Segment, ...], alive: tuple[Tensor, ...], codebooks: Tensor
    ) -> "Snapshot":
        """Return the snapshot of these segments with these rows alive."""
        live, fresh = zip(*map(_live_and_fresh, segments, alive), strict=True)
        return cls(segments, alive, codebooks, live, fresh)

    @classmethod
    def fixed(
        cls, prefixes: Trie, codes: Tensor, embeddings: Tensor, codebooks: Tensor
    ) -> "Snapshot":
        """Return the snapshot of a database that does not change: every row alive, none fresh, ties
        by row. ``embeddings`` may be (N, 0) if nothing is sorted by cosine."""
        all_rows = torch.ones(len(codes), dtype=torch.bool, device=codes.device)
        rows = torch.arange(len(codes), device=codes.device)
        segment = Segment(prefixes, codes, embeddings, rows, all_rows)
        return cls.build((segment,), (all_rows,), codebooks)

    def __len__(self) -> int:
        """Return the number of images alive."""
        return sum(map(len, self.live_tries))

    @property
    def rows(self) -> int:
        """Return the number of rows, dead ones included."""
        return sum(map(len, self.segments))

    @property
    def starts(self) -> tuple[int, ...]:
        """Each segment's first row number, and at the end the number of rows."""
        ends = [0]
        for segment in self.segments:
            ends.append(ends[-1] + len(segment))
        return tuple(ends)

    @property
    def trained(self) -> Tensor:
        """Return which rows (rows,) bool the retriever was trained on, dead ones included."""
        columns = [segment.trained for segment in self.segments]
        return columns[0] if len(columns) == 1 else torch.cat(columns)

    def alive_rows(self) -> Tensor:
        """Return the numbers (n,) int64 of the rows alive, ascending."""
        return torch.nonzero(torch.cat(self.alive)).flatten()

    def without(self, rows: Tensor) -> "Snapshot":
        """Return the snapshot in which ``rows`` (n,) int64 are dead."""
        alive = list(self.alive)
        live_tries, fresh_tries = list(self.live_tries), list(self.fresh_tries)
        for i, (start, end) in enumerate(pairwise(self.starts)):
            dropped = rows[(rows >= start) & (rows < end)] - start
            dropped = dropped[alive[i][dropped]].unique()
            if len(dropped):
                untrained = dropped[~self.segments[i].trained[dropped]]
                alive[i] = alive[i].index_fill(0, dropped, False)
                live_tries[i] = live.drop_rows(live_tries[i], dropped)
                fresh_tries[i] = live.drop_rows(fresh_tries[i], untrained)
        return Snapshot(
            self.segments, tuple(alive), self.codebooks, tuple(live_tries), tuple(fresh_tries)
        )

    def with_added(self, segment: Segment) -> "Snapshot":
        """Return the snapshot with ``segment`` as its second one: the rows of the former one, and
        new rows after them. Dead rows stay dead."""
        before = self.alive[1] if len(self.alive) > 1 else self.alive[0].new_empty(0)
        alive = torch.cat([before, before.new_ones(len(segment) - len(before))])
        added, fresh = _live_and_fresh(segment, alive)
        return Snapshot(
            (self.segments[0], segment),
            (self.alive[0], alive),
            self.codebooks,
            (self.live_tries[0], added),
            (self.fresh_tries[0], fresh),
        )

    def keep_allowed(self, allowed: Tensor) -> "Snapshot":
        """Return the snapshot with only the rows alive where ``allowed`` (rows,) bool is true: a
        filter."""
        masks = allowed.split([len(segment) for segment in self.segments])
        alive = tuple(a & b for a, b in zip(self.alive, masks, strict=True))
        return Snapshot.build(self.segments, alive, self.codebooks)

    def live_parts(self, fresh: bool) -> list[LivePart]:
        """Return the live rows of each segment that has some, with ``fresh`` only the fresh
        ones."""
        tries = self.fresh_tries if fresh else self.live_tries
        parts = map(LivePart, self.starts, tries)  # starts is longer by one
        return [part for part in parts if len(part.live)]

    def to(self, device: torch.device) -> "Snapshot":
        """Return the snapshot with its arrays on ``device``."""
        return Snapshot.build(
            tuple(segment.to(device) for segment in self.segments),
            tuple(alive.to(device) for alive in self.alive),
            self.codebooks.to(device),
        )

    def gather(self, rows: Tensor, name: str) -> Tensor:
        """Return ``embeddings``, ``keys``, ``codes`` or ``trained`` of rows (…) → (…, …); row −1
        gives that of row 0."""
        rows = rows.clamp_min(0)
        columns: Iterator[Tensor] = (getattr(segment, name) for segment in self.segments)
        if len(self.segments) == 1:
            return next(columns)[rows]
        base, added = columns
        values = (
            base[rows.clamp_max(len(base) - 1)]
            if len(base)
            else base.new_zeros((*rows.shape, *base.shape[1:]))
        )
        in_added = rows >= len(base)
        values[in_added] = added[rows[in_added] - len(base)]
        return values


def _live_and_fresh(segment: Segment, alive: Tensor) -> tuple[LiveTrie, LiveTrie]:
    tree = segment.trie
    every = live.keep_all(tree) if bool(alive.all()) else live.keep_rows(tree, alive)
    return every, live.keep_rows(tree, alive & ~segment.trained)
