"""Draw queries and the images found for them: ``python examples/results_picture.py picture.png``.

It searches ``data/index`` with digits that it was not trained on, so run ``make run`` first.
"""

import io
import sys
from pathlib import Path

import polars as pl
from PIL import Image, ImageDraw

from irgen.catalog.shards import Images
from irgen.index.index import Index

QUERIES, HITS = 5, 9
SIDE, GAP, LEFT = 64, 6, 18
GREEN, RED, GREY = "#0f766e", "#dc2626", "#94a3b8"


def draw(data: Path) -> Image.Image:
    """Return a picture with a row per query: the query, then its hits, red if the label differs."""
    queries = pl.read_parquet(data / "catalog" / "queries.parquet")
    queries = queries.unique("label", keep="first", maintain_order=True).sort("label").head(QUERIES)
    database = pl.read_parquet(data / "catalog" / "database.parquet")
    by_id = {row["id"]: row for row in database.iter_rows(named=True)}
    images = Images(data / "download")
    with Index.open(data / "index") as index:
        contents = [images.read(sha256) for sha256 in queries["sha256"]]
        hits = index.search(contents, HITS + 1)  # one more: a query finds itself
    width = LEFT + SIDE + LEFT + HITS * (SIDE + GAP) + GAP
    sheet = Image.new("RGB", (width, GAP + QUERIES * (SIDE + 2 * GAP)), "white")
    for i, query in enumerate(queries.iter_rows(named=True)):
        top = GAP + i * (SIDE + 2 * GAP)
        paste(sheet, contents[i], (LEFT, top), GREY)
        others = [hit for hit in hits.ids[i] if hit != query["id"]][:HITS]
        for j, hit in enumerate(others):
            row = by_id[hit]
            colour = GREEN if row["label"] == query["label"] else RED
            corner = (LEFT + SIDE + LEFT + j * (SIDE + GAP), top)
            paste(sheet, images.read(row["sha256"]), corner, colour)
    return sheet


def paste(sheet: Image.Image, content: bytes, corner: tuple[int, int], colour: str) -> None:
    """Paste one image with a coloured frame."""
    picture = Image.open(io.BytesIO(content)).convert("RGB").resize((SIDE, SIDE))
    sheet.paste(picture, corner)
    x, y = corner
    ImageDraw.Draw(sheet).rectangle((x - 2, y - 2, x + SIDE + 1, y + SIDE + 1), None, colour, 2)


if __name__ == "__main__":
    draw(Path("data")).save(sys.argv[1])
