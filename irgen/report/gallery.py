"""Choose a few queries with their results, for people to look at."""

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
from PIL import Image
from PIL.Image import Resampling

from irgen.evaluation import metrics, runs
from irgen.evaluation.query_set import count_positives

Thumbnail = Callable[[str], str]  # a data URI by an image's content hash

NAMELESS = "(no label)"
SIDE = 96  # pixels of a thumbnail's longer side


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One result: its thumbnail (a data URI), label, score, code, and whether it is relevant."""

    image: str
    label: str
    score: float
    code: str
    relevant: bool


@dataclass(frozen=True, kw_only=True)
class Example:
    """A query, the reason to show it, and each method's results in rank order."""

    image: str
    label: str
    reason: str
    results: dict[str, list[Tile]]


def choose_examples(
    queries: pl.DataFrame,
    database: pl.DataFrame,
    method_runs: dict[str, pl.DataFrame],
    thumbnail: Thumbnail,
    *,
    k: int,
    count: int,
    seed: int,
) -> list[Example]:
    """Choose ``count`` queries by how well the first method answers them; return them with each
    method's results. ``method_runs``: runs by method, cut at k."""
    positives = count_positives(
        queries["label"], queries["sha256"], database["label"], database["sha256"]
    )
    _, hits = runs.from_table(next(iter(method_runs.values())), len(queries), k)
    quality = np.where(positives > 0, metrics.precision_capped(hits, positives, k), np.nan)
    return [
        Example(
            image=thumbnail(queries["sha256"][row]),
            label=queries["label"][row] or NAMELESS,
            reason=reason,
            results={
                m: _list_tiles(run, row, database, thumbnail) for m, run in method_runs.items()
            },
        )
        for row, reason in choose(quality, count, seed)
    ]


def _list_tiles(
    run: pl.DataFrame, query: int, database: pl.DataFrame, thumbnail: Thumbnail
) -> list[Tile]:
    results = run.filter(pl.col("query") == query).sort("rank")
    return [
        Tile(
            image=thumbnail(database["sha256"][row["item"]]),
            label=database["label"][row["item"]] or NAMELESS,
            score=row["score"],
            code=row["code"],
            relevant=row["relevant"],
        )
        for row in results.iter_rows(named=True)
    ]


def choose(quality: npt.NDArray[np.float64], n: int, seed: int) -> list[tuple[int, str]]:
    """Choose n rows of ``quality`` (Q,), each with the reason: a third are the worst, a quarter the
    best, the rest random. Ties are broken at random. NaN marks a query never to choose.

    Deterministic for a seed; all rows if there are no more than n.

    >>> [row for row, reason in choose(np.array([1.0, 0.0, 0.5, np.nan]), 3, seed=0)]
    [1, 0, 2]
    """
    generator = np.random.default_rng(seed)
    rows = generator.permutation(len(quality))
    rows = rows[~np.isnan(quality[rows])]
    rows = rows[np.argsort(quality[rows], kind="stable")]
    n = min(n, len(rows))
    worst, best = -(-n // 3), n // 4
    middle = generator.permutation(rows[worst : len(rows) - best])[: n - worst - best]
    reasons = [(rows[:worst], "one of the worst"), (rows[len(rows) - best :], "one of the best")]
    chosen = [(int(row), reason) for part, reason in reasons for row in part]
    return chosen + [(int(row), "drawn at random") for row in middle]


def thumbnail(image: Image.Image) -> str:
    """Return a data URI of the image: shrunk to SIDE as JPEG, or, if it is smaller, as PNG enlarged
    by a whole factor, so that browsers do not blur its pixels."""
    shown = image.convert("L" if image.mode in ("1", "L") else "RGB")
    small = max(shown.size) <= SIDE
    if small:
        factor = SIDE // max(shown.size)
        size = shown.width * factor, shown.height * factor
        shown = shown.resize(size, Resampling.NEAREST)
    else:
        shown.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    shown.save(buffer, "PNG" if small else "JPEG", quality=82)
    mime = "png" if small else "jpeg"
    return f"data:image/{mime};base64,{base64.b64encode(buffer.getvalue()).decode()}"
