"""Show what the first-level codes have learnt: images whose code sequences begin alike."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl

CODES, IMAGES, LABELS = 16, 10, 3


@dataclass(frozen=True, kw_only=True)
class CodePictures:
    """A first-level ``code``: how many ``images`` begin with it, their most frequent ``labels`` in
    words, and some ``thumbnails`` (data URIs)."""

    code: int
    images: int
    labels: str
    thumbnails: list[str]


def draw_code_pictures(
    codes: pl.DataFrame, table: pl.DataFrame, thumbnail: Callable[[str], str], seed: int
) -> list[CodePictures]:
    """Return the CODES first-level codes with most images, largest first.

    ``codes`` (id, level_1 …) and ``table`` (id, sha256, label) are row-aligned; ``thumbnail`` gives
    an image by its content hash. Deterministic for a seed.
    """
    assert codes["id"].equals(table["id"]), "codes are in the table's order"
    generator = np.random.default_rng(seed)
    first = codes["level_1"].to_numpy()
    numbers, counts = np.unique(first, return_counts=True)
    pictures = []
    for code in numbers[np.lexsort((numbers, -counts))[:CODES]]:
        rows = np.flatnonzero(first == code)
        sample = generator.permutation(rows)[:IMAGES]
        pictures.append(
            CodePictures(
                code=int(code),
                images=len(rows),
                labels=describe_labels(table["label"][rows]),
                thumbnails=[thumbnail(table["sha256"][int(row)]) for row in sample],
            )
        )
    return pictures


def describe_labels(labels: pl.Series) -> str:
    """Return the most frequent labels with their shares.

    >>> describe_labels(pl.Series("label", ["a", "a", "b", "a"]))
    'a 75%, b 25%'
    """
    counts = (
        labels.drop_nulls().value_counts().sort(["count", labels.name], descending=[True, False])
    )
    texts = [f"{label} {n / len(labels):.0%}" for label, n in counts.head(LABELS).iter_rows()]
    rest = len(counts) - LABELS
    return ", ".join([*texts, f"{rest} more"] if rest > 0 else texts) or "no labels"
