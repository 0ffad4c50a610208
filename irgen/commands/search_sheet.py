"""Show the hits of a search as a page with pictures."""

import errno
import tempfile
import webbrowser
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from irgen.catalog.images.decode import decode
from irgen.catalog.pictures import Pictures
from irgen.catalog.thumbnails import SIDE
from irgen.commands.format import format_count, format_percent
from irgen.commands.options import note
from irgen.commands.search_output import Answer
from irgen.errors import ImageError, IndexingError
from irgen.files.atomic import write_bytes
from irgen.index.index import Index
from irgen.index.metadata import ID
from irgen.report import page
from irgen.report.gallery import Example, Row, Tile, thumbnail

HITS = 100  # most hits shown of a query
PICTURES = 1000  # most hits shown on a page: about 15 MB of photos


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """A page, the notes above its hits, and how many of these have no picture."""

    html: str
    missing: int
    notes: list[str]


def draw(content: bytes) -> str:
    """Return a thumbnail of an image file. Raise ImageError if it cannot be read."""
    return thumbnail(decode(content, 3, SIDE))


def find_picture(pictures: Pictures, metadata: dict[str, Any]) -> str | None:
    """Return a thumbnail of an image of the index; None if it is not here, or damaged."""
    content = pictures.read(metadata)
    with suppress(ImageError):
        return None if content is None else draw(content)
    return None


def make_sheet(answer: Answer, index: Index, root: Path) -> Sheet:
    """Show each query with its hits: at most HITS of a query, and PICTURES in all."""
    pictures, by_query = Pictures(root), answer.hits
    most = min(HITS, max(map(len, by_query), default=0))
    shown = min(len(by_query), max(1, PICTURES // max(most, 1)))
    queries = _show_queries(answer, index, pictures, shown)
    examples = [
        Example(query=query, group="", rows=[_show_hits(hits[:HITS], pictures)])
        for query, hits in zip(queries, by_query[:shown], strict=True)
    ]
    tiles = [tile for example in examples for row in example.rows for tile in row.tiles]
    missing = sum(tile.image is None for tile in tiles)
    notes = []
    if shown < len(by_query):
        notes.append(f"These are the first {shown:,} of {len(by_query):,} queries.")
    if any(len(hits) > HITS for hits in by_query[:shown]):
        notes.append(f"Each query shows its first {HITS} hits.")
    if missing:
        notes.append(f"{missing:,} of {format_count(len(tiles), 'hit')} have no picture here.")
    noun = "text" if answer.queries.kind == "text" else "query image"
    title = queries[0].title if len(by_query) == 1 else format_count(len(by_query), noun)
    facts = {
        "Index": f"{index.info()['folder']}: {format_count(len(index), 'image')}",
        "Searched": f"{datetime.now():%d %B %Y, %H:%M}",
    }
    html = page.render_sheet(title, facts, notes, examples)
    return Sheet(html=html, missing=missing, notes=notes)


def _show_queries(answer: Answer, index: Index, pictures: Pictures, shown: int) -> list[Tile]:
    """Return the first ``shown`` queries: image files, words, or images of the index."""
    queries = answer.queries
    names = list(queries.names[:shown])
    if queries.kind == "text":
        return [Tile(image=None, title=name, words=name) for name in names]
    if queries.kind != "id":
        return [_show_file(Path(name), queries.text) for name in names]
    rows = index.view.take(index.view.find_existing(names)).rows(named=True)
    return [
        Tile(image=find_picture(pictures, row), title=row[ID], notes=_label(row)) for row in rows
    ]


def _show_file(path: Path, text: str) -> Tile:
    folder = "" if path.parent == Path() else str(path.parent)
    notes = tuple(filter(None, [folder, text]))
    return Tile(image=draw(path.read_bytes()), title=path.name, notes=notes, caption=str(path))


def _label(metadata: dict[str, Any]) -> tuple[str, ...]:
    label = metadata.get("label")
    return () if label is None else (str(label),)


def _show_hits(hits: Sequence[dict[str, Any]], pictures: Pictures) -> Row:
    return Row(
        heading=format_count(len(hits), "hit") if hits else "no match",
        tiles=[_show_hit(hit, pictures) for hit in hits],
    )


def _show_hit(hit: dict[str, Any], pictures: Pictures) -> Tile:
    name, label = hit[ID], _label(hit["metadata"])
    score = f"{hit['score']:.3f}"
    caption = f"{name} · score {score}"
    if hit["same_label"] is not None:
        score += f" · {format_percent(hit['same_label'])}"
        caption += f" · same label: {format_percent(hit['same_label'])}"
    return Tile(
        image=find_picture(pictures, hit["metadata"]),
        title=label[0] if label else name,
        notes=(score, name) if label else (score,),
        caption=" · ".join([*label, caption]),
    )


def write_sheet(sheet: Sheet, path: Path | None, *, show: bool) -> None:
    """Write a sheet to ``path``, by default a temporary file; ``show`` it in the browser. Print
    where it is and what it lacks. Raise IndexingError if it cannot be written."""
    if path is None:
        with tempfile.NamedTemporaryFile(prefix="irgen-", suffix=".html", delete=False) as file:
            path = Path(file.name)
    try:
        write_bytes(path, sheet.html.encode())
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):  # the command line says what to do
            raise
        raise IndexingError(
            f"the sheet {path} cannot be written ({error.strerror}): give --html another file"
        ) from None
    note(" ".join([f"the pictures are in {path.resolve()}.", *sheet.notes]))
    if sheet.missing:
        note(
            "pictures come from data/download and uploads/ of the project (--root), and from the "
            "files that irgen add read, if you search in the folder that their ids start from"
        )
    if show and not webbrowser.open(path.resolve().as_uri()):
        note(f"no browser could be started: open {path.resolve()} in one")
