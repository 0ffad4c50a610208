"""Changes of the index that clients ask for, made together where that is possible."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
import polars as pl
import torch
from torch import Tensor

from irgen.index.index import Index
from irgen.serve.champion import Served
from irgen.serve.errors import OutdatedError


@dataclass(frozen=True, kw_only=True)
class Addition:
    """Images to add, all of them or none; with ``replace``, instead of those with the same ids.

    ``pixels`` (n, C, H, W) uint8 and ``metadata``, with all columns, are as the index ``served``
    needs them. ``deadline``: of ``time.monotonic``, to begin.
    """

    served: Served
    ids: list[str]
    pixels: np.ndarray
    metadata: pl.DataFrame
    replace: bool
    deadline: float

    @property
    def key(self) -> str:
        """Return a text that is equal for changes that can be made together."""
        return f"{'upsert' if self.replace else 'add'} {id(self.served)}"


@dataclass(frozen=True, kw_only=True)
class Removal:
    """Images to remove, all of them or none. ``deadline``: of ``time.monotonic``, to begin."""

    ids: list[str]
    deadline: float

    @property
    def key(self) -> str:
        """Return a text that is equal for changes that can be made together."""
        return "remove"


@dataclass(frozen=True)
class Changed:
    """A change that is on the disk, of an index that has now a number of ``images``. ``replaced``:
    images that were instead of others."""

    images: int
    replaced: int


Encoded = tuple[Addition, Tensor]  # with the embeddings (n, D) of its images


def encode(additions: Sequence[Addition]) -> list[Encoded]:
    """Encode the images of additions of one key together."""
    pixels = np.concatenate([addition.pixels for addition in additions])
    vectors = additions[0].served.index.embed(pixels)
    parts = vectors.split([len(addition.ids) for addition in additions])
    return list(zip(additions, parts, strict=True))


def add(index: Index, encoded: Sequence[Encoded]) -> list[Changed]:
    """Add the images of additions of one key, in one commit, to an index that is open for changes.
    Raise OutdatedError if they were prepared for an index that is not like it, IndexingError as
    ``Index.add_encoded`` does."""
    additions = [addition for addition, _ in encoded]
    first, vectors = additions[0], torch.cat([part for _, part in encoded])
    if not index.takes_rows_of(first.served.index):
        raise OutdatedError
    ids = [name for addition in additions for name in addition.ids]
    is_present = index.view.find(ids) >= 0
    table = pl.concat([addition.metadata for addition in additions])
    write = index.upsert_encoded if first.replace else index.add_encoded
    write(vectors, ids, table if table.width else None)
    ends = accumulate((len(addition.ids) for addition in additions), initial=0)
    replaced = [int(is_present[start:end].sum()) for start, end in pairwise(ends)]
    return [Changed(len(index), count) for count in replaced]


def remove(index: Index, removals: Sequence[Removal]) -> list[Changed]:
    """Remove the images of all removals, in one commit. Raise IndexingError as ``Index.remove``
    does."""
    index.remove([name for removal in removals for name in removal.ids])
    return [Changed(len(index), 0) for _ in removals]
