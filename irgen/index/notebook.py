"""Show hits and indexes in a notebook: as HTML, with small pictures where their files are here."""

import base64
from collections.abc import Mapping
from contextlib import suppress
from html import escape
from pathlib import Path
from typing import Any

import polars as pl

from irgen.catalog.images.decode import decode
from irgen.catalog.pictures import Pictures
from irgen.catalog.thumbnails import encode_thumbnail
from irgen.errors import ImageError
from irgen.index.metadata import ID
from irgen.index.view import View

MOST_QUERIES, MOST_HITS, MOST_IMAGES = 10, 12, 8  # shown
SIDE = 96  # pixels of a picture
SETTINGS = "params.yaml"  # in the folder of a project
GRID = "display:flex;flex-wrap:wrap;gap:8px;margin:4px 0 12px"
TILE = f"width:{SIDE}px;font-size:12px;line-height:1.3;overflow-wrap:anywhere"
FRAME = (
    f"width:{SIDE}px;height:{SIDE}px;object-fit:contain;display:grid;place-items:center;"
    "background:#8882;border-radius:4px"
)


def show_hits(view: View, hits: pl.DataFrame, queries: int) -> str:
    """Return the hits of the first queries. ``hits``: one row each, as ``ImageHits.table`` has
    them, of images of ``view``."""
    pictures, parts = Pictures(find_project(view.base.folder)), []
    for query in range(min(queries, MOST_QUERIES)):
        rows = hits.filter(pl.col("query") == query)
        tiles = _show_tiles(view, rows.head(MOST_HITS), pictures)
        parts.append(f"<div><b>Query {query}</b>: {_count(len(rows), 'hit')}{tiles}</div>")
    if queries > MOST_QUERIES:
        parts.append(
            f"<div>and {_count(queries - MOST_QUERIES, 'more query', 'more queries')}</div>"
        )
    return "".join(parts) or "<div>no queries</div>"


def show_index(view: View, folder: Path) -> str:
    """Return size and columns of an index, and some of its images."""
    rows = view.snapshot.alive_rows().numpy()
    shown = view.take(rows[:: max(1, len(rows) // MOST_IMAGES)][:MOST_IMAGES])
    columns = ", ".join(f"{name} ({kind})" for name, kind in view.schema.items()) or "none"
    tiles = _show_tiles(view, shown.select(ID), Pictures(find_project(folder)))
    title = f"<b>{escape(str(folder))}</b>: {_count(len(rows), 'image')}"
    return f"<div>{title}; columns: {escape(columns)}{tiles}</div>"


def find_project(folder: Path) -> Path:
    """Return the project that an index belongs to: the nearest folder above with its settings, else
    the folder itself. Pictures are looked for below it."""
    parents = folder.resolve().parents
    return next((parent for parent in parents if (parent / SETTINGS).exists()), folder)


def _show_tiles(view: View, images: pl.DataFrame, pictures: Pictures) -> str:
    rows = view.find(images[ID].to_list())
    metadata = view.take(rows[rows >= 0]).rows(named=True)
    numbers = images.filter(rows >= 0).rows(named=True)
    tiles = [_show_tile(*pair, pictures) for pair in zip(metadata, numbers, strict=True)]
    return f'<div style="{GRID}">{"".join(tiles)}</div>'


def _show_tile(metadata: Mapping[str, Any], numbers: Mapping[str, Any], pictures: Pictures) -> str:
    """Return one picture with its label, id and, of a hit, its score."""
    label, name = metadata.get("label"), str(metadata[ID])
    texts = [f"<b>{escape(str(label))}</b>"] if label is not None else []
    texts += [_show_score(numbers)] if "score" in numbers else []
    texts.append(f'<span style="opacity:.7">{escape(name)}</span>')
    picture = _show_picture(metadata, name, pictures)
    return f'<div style="{TILE}">{picture}{"<br>".join(texts)}</div>'


def _show_score(numbers: Mapping[str, Any]) -> str:
    same_label = numbers["same_label"]
    return f"{numbers['score']:.3f}" + ("" if same_label is None else f" · {same_label:.0%}")


def _show_picture(metadata: Mapping[str, Any], name: str, pictures: Pictures) -> str:
    content = pictures.read(metadata)
    with suppress(ImageError):
        if content is not None:
            kind, small = encode_thumbnail(decode(content, 3, SIDE), SIDE)
            source = f"data:{kind};base64,{base64.b64encode(small).decode()}"
            return f'<img alt="{escape(name)}" src="{source}" style="{FRAME}">'
    return f'<div style="{FRAME}">no picture here</div>'


def _count(number: int, noun: str, plural: str = "") -> str:
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
