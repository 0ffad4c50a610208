"""What each first-level code has learnt, as rows of pictures."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl

CODES, IMAGES, LABELS = 16, 10, 3


@dataclass(frozen=True, kw_only=True)
class Branch:
    """A first-level code: how many ``images`` begin with it, their commonest ``labels`` in words,
    and a few ``shown`` (data URIs)."""

    code: int
    images: int
    labels: str
    shown: list[str]


def branches(
    codes: pl.DataFrame, table: pl.DataFrame, thumbnail: Callable[[str], str], seed: int
) -> list[Branch]:
    """The CODES first-level codes that most images begin with, largest first.

    ``codes`` (id, level_1 …) and ``table`` (id, sha256, label) are row-aligned; ``thumbnail`` gives
    an image by its content hash. Deterministic for a seed.
    """
    assert codes["id"].equals(table["id"]), "codes are in the table's order"
    generator = np.random.default_rng(seed)
    first = codes["level_1"].to_numpy()
    numbers, counts = np.unique(first, return_counts=True)
    found = []
    for place in np.lexsort((numbers, -counts))[:CODES]:
        rows = np.flatnonzero(first == numbers[place])
        drawn = generator.permutation(rows)[:IMAGES]
        found.append(
            Branch(
                code=int(numbers[place]),
                images=len(rows),
                labels=in_words(table["label"][rows]),
                shown=[thumbnail(table["sha256"][int(row)]) for row in drawn],
            )
        )
    return found


def in_words(labels: pl.Series) -> str:
    """The commonest labels with their shares.

    >>> in_words(pl.Series(["a", "a", "b", "a"]))
    'a 75%, b 25%'
    """
    counted = (
        labels.drop_nulls()
        .value_counts()
        .sort(["count", labels.name or ""], descending=[True, False])
    )
    told = [
        f"{label} {count / len(labels):.0%}" for label, count in counted.head(LABELS).iter_rows()
    ]
    others = len(counted) - LABELS
    return ", ".join([*told, f"{others} more"] if others > 0 else told) or "no labels"
