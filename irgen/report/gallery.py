"""A few queries with what was found for each, to look at."""

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

Thumbnail = Callable[[str], str]  # a data URI by an image's content hash

NAMELESS = "(no label)"
SIDE = 96  # pixels of a thumbnail's longer side


@dataclass(frozen=True, kw_only=True)
class Found:
    """One result: its thumbnail (a data URI), label, score, code, and whether it is relevant."""

    image: str
    label: str
    score: float
    code: str
    relevant: bool


@dataclass(frozen=True, kw_only=True)
class Example:
    """A query, why it was chosen, and the results of each method in rank order."""

    image: str
    label: str
    reason: str
    found: dict[str, list[Found]]


def examples(
    queries: pl.DataFrame,
    database: pl.DataFrame,
    shown: dict[str, pl.DataFrame],
    wanted: tuple[int, int, int],
    thumbnail: Thumbnail,
) -> list[Example]:
    """Queries chosen by how well the first method of ``shown`` (runs by method, cut at k) answers
    them, with what each of those found. ``wanted`` = (k, how many queries, seed)."""
    k, count, seed = wanted
    positives = runs.positives(
        queries["label"], queries["sha256"], database["label"], database["sha256"]
    )
    hits = runs.from_table(next(iter(shown.values())), len(queries), k)[2]
    quality = np.where(positives > 0, metrics.precision_capped(hits, positives, k), np.nan)
    return [
        Example(
            image=thumbnail(queries["sha256"][row]),
            label=queries["label"][row] or NAMELESS,
            reason=reason,
            found={m: _found(run, row, database, thumbnail) for m, run in shown.items()},
        )
        for row, reason in choose(quality, count, seed)
    ]


def _found(
    run: pl.DataFrame, query: int, database: pl.DataFrame, thumbnail: Thumbnail
) -> list[Found]:
    own = run.filter(pl.col("query") == query).sort("rank")
    return [
        Found(
            image=thumbnail(database["sha256"][row["item"]]),
            label=database["label"][row["item"]] or NAMELESS,
            score=row["score"],
            code=row["code"],
            relevant=row["relevant"],
        )
        for row in own.iter_rows(named=True)
    ]


def choose(quality: npt.NDArray[np.float64], n: int, seed: int) -> list[tuple[int, str]]:
    """n rows of ``quality`` (Q,), each with the reason for it: a third of the worst, a quarter of
    the best, and the rest drawn at random; ties by lot. NaN marks a query never to choose.

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
    """A data URI of the image: shrunk to SIDE at most as JPEG, or, if it was small enough, as PNG,
    enlarged by a whole factor so that a browser does not blur its pixels."""
    shown = image.convert("L" if image.mode in ("1", "L") else "RGB")
    small = max(shown.size) <= SIDE
    if small:
        shown = _enlarged(shown, SIDE // max(shown.size))
    else:
        shown.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    shown.save(buffer, "PNG" if small else "JPEG", quality=82)
    kind = "png" if small else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _enlarged(image: Image.Image, factor: int) -> Image.Image:
    return image.resize((image.width * factor, image.height * factor), Resampling.NEAREST)
