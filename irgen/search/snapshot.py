"""What an index holds at one moment: immutable, so that a search sees one state from end to end."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from irgen.search import live, trie
from irgen.search.live import Live
from irgen.search.trie import Trie


@dataclass(frozen=True)
class Segment:
    """Some of an index's images, row by row, and the trie over their codes.

    ``codes`` (n, M) integers; ``embeddings`` (n, D) floats, unit vectors; ``keys`` (n,) int64, the
    hashes of their ids, by which ties are broken; ``trained`` (n,) bool, whether the retriever was
    trained on the image.
    """

    trie: Trie
    codes: Tensor
    embeddings: Tensor
    keys: Tensor
    trained: Tensor

    @classmethod
    def build(cls, codes: Tensor, embeddings: Tensor, keys: Tensor, trained: Tensor) -> "Segment":
        """A segment of rows in any order; those of one code stand in its trie by key."""
        assert len(codes) == len(embeddings) == len(keys) == len(trained), "one row an image"
        return cls(trie.build(codes, keys), codes, embeddings, keys, trained)

    def __len__(self) -> int:
        return len(self.keys)

    def to(self, device: torch.device) -> "Segment":
        """The same segment with its arrays on ``device``."""
        columns = (self.codes, self.embeddings, self.keys, self.trained)
        return Segment(self.trie.to(device), *(column.to(device) for column in columns))


@dataclass(frozen=True)
class Snapshot:
    """The segments of an index – the base, and what was added since if anything was – and which of
    their rows are alive.

    Rows are numbered through the segments: row 0 of the second follows the last row of the first.
    ``alive``: one (n,) bool a segment. ``codebooks`` (M, L, D) are the tokenizer's. Nothing is ever
    changed in place; the methods give new snapshots that share what did not change.
    """

    segments: tuple[Segment, ...]
    alive: tuple[Tensor, ...]
    codebooks: Tensor
    lives: tuple[Live, ...]  # of the rows alive
    fresh: tuple[Live, ...]  # of those of them that the retriever was not trained on

    @classmethod
    def of(
        cls, segments: tuple[Segment, ...], alive: tuple[Tensor, ...], codebooks: Tensor
    ) -> "Snapshot":
        """The snapshot of these segments with these rows alive."""
        lives, fresh = zip(*map(_lives, segments, alive), strict=True)
        return cls(segments, alive, codebooks, lives, fresh)

    @classmethod
    def fixed(
        cls, prefixes: Trie, codes: Tensor, embeddings: Tensor, codebooks: Tensor
    ) -> "Snapshot":
        """The snapshot of a database that does not change: every row alive and known to the
        retriever, ties by row. ``embeddings`` may be (N, 0) where nothing is ordered by cosine."""
        every = torch.ones(len(codes), dtype=torch.bool, device=codes.device)
        rows = torch.arange(len(codes), device=codes.device)
        return cls.of((Segment(prefixes, codes, embeddings, rows, every),), (every,), codebooks)

    def __len__(self) -> int:
        """Images alive."""
        return sum(map(len, self.lives))

    @property
    def rows(self) -> int:
        """Rows in all, dead ones included."""
        return sum(map(len, self.segments))

    @property
    def starts(self) -> tuple[int, ...]:
        """The number of each segment's first row, and at the end the number of rows."""
        ends = [0]
        for segment in self.segments:
            ends.append(ends[-1] + len(segment))
        return tuple(ends)

    def alive_rows(self) -> Tensor:
        """Numbers (n,) int64 of the rows alive, ascending."""
        return torch.nonzero(torch.cat(self.alive)).flatten()

    def without(self, rows: Tensor) -> "Snapshot":
        """The snapshot in which ``rows`` (n,) int64 are dead."""
        alive, lives, fresh = list(self.alive), list(self.lives), list(self.fresh)
        for i, (start, end) in enumerate(pairwise(self.starts)):
            mine = rows[(rows >= start) & (rows < end)] - start
            gone = mine[alive[i][mine]].unique()
            if len(gone):
                untrained = gone[~self.segments[i].trained[gone]]
                alive[i] = alive[i].index_fill(0, gone, False)
                lives[i] = live.without(lives[i], gone)
                fresh[i] = live.without(fresh[i], untrained)
        return Snapshot(self.segments, tuple(alive), self.codebooks, tuple(lives), tuple(fresh))

    def with_added(self, segment: Segment) -> "Snapshot":
        """The snapshot whose second segment is ``segment``: all that was added so far in the same
        rows, and new rows at its end. What was dead stays dead."""
        known = self.alive[1] if len(self.alive) > 1 else self.alive[0].new_empty(0)
        new = known.new_ones(len(segment) - len(known))
        alive = torch.cat([known, new])
        added, fresh = _lives(segment, alive)
        return Snapshot(
            (self.segments[0], segment),
            (self.alive[0], alive),
            self.codebooks,
            (self.lives[0], added),
            (self.fresh[0], fresh),
        )

    def among(self, allowed: Tensor) -> "Snapshot":
        """The snapshot as if only rows where ``allowed`` (rows,) bool is true were alive: a
        filter."""
        alive = zip(
            self.alive, allowed.split([len(segment) for segment in self.segments]), strict=True
        )
        return Snapshot.of(self.segments, tuple(a & b for a, b in alive), self.codebooks)

    def parts(self, fresh: bool) -> list[tuple[int, Live]]:
        """The segments with a row to find, by number, and which of their rows take part: those
        alive, with ``fresh`` only those of them that the retriever was not trained on."""
        lives = enumerate(self.fresh if fresh else self.lives)
        return [(number, part) for number, part in lives if len(part)]

    def to(self, device: torch.device) -> "Snapshot":
        """The same snapshot with its arrays on ``device``."""
        return Snapshot.of(
            tuple(segment.to(device) for segment in self.segments),
            tuple(alive.to(device) for alive in self.alive),
            self.codebooks.to(device),
        )

    def gather(self, rows: Tensor, name: str) -> Tensor:
        """``embeddings``, ``keys``, ``codes`` or ``trained`` of any rows (…) → (…, …); of a row −1
        that of row 0."""
        rows = rows.clamp_min(0)
        columns: Iterator[Tensor] = (getattr(segment, name) for segment in self.segments)
        if len(self.segments) == 1:
            return next(columns)[rows]
        base, added = columns
        found = (
            base[rows.clamp_max(len(base) - 1)]
            if len(base)
            else base.new_zeros((*rows.shape, *base.shape[1:]))
        )
        late = rows >= len(base)
        found[late] = added[rows[late] - len(base)]
        return found


def _lives(segment: Segment, alive: Tensor) -> tuple[Live, Live]:
    whole = bool(alive.all())
    every = live.everything(segment.trie) if whole else live.only(segment.trie, alive)
    return every, _fresh(segment, alive)


def _fresh(segment: Segment, alive: Tensor) -> Live:
    return live.only(segment.trie, alive & ~segment.trained)
