"""Show queries with their results as rows of pictures, for the report and for search sheets."""

import base64
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
from PIL import Image

from irgen.catalog.thumbnails import encode_thumbnail
from irgen.evaluation import metrics, runs
from irgen.evaluation.query_set import Flags, QuerySet

Thumbnail = Callable[[str], str]  # a data URI by an image's content hash
Mark = Literal["hit", "miss", "shared", "plain"]

NAMELESS = "(no label)"
RANDOM, BEST, WORST = "Drawn at random", "Among the best", "Among the worst"


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One picture and its texts: ``image``, a data URI, or None if there is no picture, and then
    ``words`` in its place; ``title`` and short ``notes`` below it; a longer ``caption``, shown when
    it is enlarged. ``mark``: hit or miss; shared, also a neighbour by pretrained features; or
    plain."""

    image: str | None
    title: str
    notes: tuple[str, ...] = ()
    caption: str = ""
    mark: Mark = "plain"
    words: str = "no picture"


@dataclass(frozen=True, kw_only=True)
class Row:
    """Results of a query in rank order, under a ``heading``; ``empty``: number of missing ones."""

    heading: str
    tiles: list[Tile]
    empty: int = 0


@dataclass(frozen=True, kw_only=True)
class Example:
    """A query, the ``group`` that it is shown in, and its rows of results."""

    query: Tile
    group: str
    rows: list[Row]


def choose_examples(
    query_set: QuerySet,
    method_runs: dict[str, pl.DataFrame],
    thumbnail: Thumbnail,
    *,
    k: int,
    count: int,
    seed: int,
    neighbours: pl.DataFrame | None = None,
) -> list[Example]:
    """Choose ``count`` queries by how well the first method answers them; return them with each
    method's results.

    ``method_runs``: runs by the title of their method, cut at k. ``neighbours``: without labels,
    the run of the pretrained features; an answer is good if it returns the same images.
    """
    if neighbours is None:
        marks: tuple[Mark, Mark] = ("hit", "miss")
        says = "relevant"
    else:
        marks, says = ("shared", "plain"), "are also among the encoder's own nearest"
        nearest = neighbours.filter(pl.col("rank") <= k).select("query", "item", relevant=True)
        method_runs = {
            title: run.drop("relevant")
            .join(nearest, on=["query", "item"], how="left", maintain_order="left")
            .with_columns(pl.col("relevant").fill_null(False))
            for title, run in method_runs.items()
        }
    queries, database = query_set.queries, query_set.database
    _, hits = runs.from_table(next(iter(method_runs.values())), len(queries), k)
    quality = hits.mean(axis=1) if neighbours is not None else _rate(hits, query_set.positives)

    def make_row(title: str, run: pl.DataFrame, query: int) -> Row:
        results = run.filter(pl.col("query") == query).sort("rank")
        good = results["relevant"].sum()
        tiles = [
            _make_tile(database, r["item"], thumbnail, r, marks)
            for r in results.iter_rows(named=True)
        ]
        return Row(heading=f"{title}: {good} of {k} {says}", tiles=tiles, empty=k - len(tiles))

    return [
        Example(
            query=_make_tile(queries, query, thumbnail),
            group=group,
            rows=[make_row(title, run, query) for title, run in method_runs.items()],
        )
        for query, group in choose(quality, count, seed)
    ]


def _rate(hits: Flags, positives: metrics.Counts) -> npt.NDArray[np.float64]:
    """Return precision_capped of each query (Q,); NaN if nothing can answer it."""
    return np.where(positives > 0, metrics.precision_capped(hits, positives, hits.shape[1]), np.nan)


def _make_tile(
    table: pl.DataFrame,
    row: int,
    thumbnail: Thumbnail,
    result: dict[str, Any] | None = None,
    marks: tuple[Mark, Mark] = ("plain", "plain"),
) -> Tile:
    """Show an image of the catalogue ``table``, as a ``result`` (a row of a run) if given. Its
    title is its label, or its id if no image has a label."""
    name, label = table["id"][row], table["label"][row]
    unlabelled = table["label"].null_count() == len(table)
    notes: tuple[str, ...] = ()
    caption = name
    if result is not None:
        notes = (f"{result['score']:.3f}",)
        caption = f"{name} · score {notes[0]} · code {result['code']}"
    return Tile(
        image=thumbnail(table["sha256"][row]),
        title=name if unlabelled else label or NAMELESS,
        notes=notes,
        caption=caption,
        mark=marks[0] if result is not None and result["relevant"] else marks[1],
    )


def choose(quality: npt.NDArray[np.float64], n: int, seed: int) -> list[tuple[int, str]]:
    """Choose n rows of ``quality`` (Q,), each with its group: random ones first, then the best, a
    quarter, and the worst, a third. Ties are broken at random. NaN marks a query never to choose.

    Deterministic for a seed; all rows if there are no more than n.

    >>> [row for row, group in choose(np.array([1.0, 0.0, 0.5, np.nan]), 3, seed=0)]
    [0, 2, 1]
    """
    generator = np.random.default_rng(seed)
    rows = generator.permutation(len(quality))
    rows = rows[~np.isnan(quality[rows])]
    rows = rows[np.argsort(quality[rows], kind="stable")]
    n = min(n, len(rows))
    worst, best = -(-n // 3), n // 4
    middle = generator.permutation(rows[worst : len(rows) - best])[: n - worst - best]
    groups = [(middle, RANDOM), (rows[len(rows) - best :][::-1], BEST), (rows[:worst], WORST)]
    return [(int(row), group) for part, group in groups for row in part]


def thumbnail(image: Image.Image) -> str:
    """Return a small picture of the image as a data URI."""
    kind, content = encode_thumbnail(image)
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
