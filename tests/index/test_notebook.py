"""Hits and indexes in a notebook: pictures where their files are, and no text that is HTML."""

import base64
import hashlib
import io
import re
from pathlib import Path

import polars as pl
from PIL import Image

from irgen.index.hits import ImageHits
from irgen.index.index import Index

from .conftest import create, images

EVIL = "<script>alert(1)</script>"
IDS = ["a.png", "b.png", EVIL]


def open_project(root: Path) -> Index:
    """Return an index in a project, with the file of one image."""
    file = io.BytesIO()
    Image.new("RGB", (300, 200), "red").save(file, "PNG")
    (root / "a.png").write_bytes(file.getvalue())
    (root / "params.yaml").touch()
    items = pl.DataFrame(
        {
            "id": IDS,
            "label": ["red", None, EVIL],
            "path": IDS,
            "sha256": [hashlib.sha256(file.getvalue()).hexdigest(), "0", None],
        }
    )
    return Index.open(create(root / "data" / "index", IDS, items=items))


def test_hits_are_shown_with_their_pictures_scores_and_labels(tmp_path: Path) -> None:
    with open_project(tmp_path) as index:
        html = index.search_ids(["b.png"], 2)._repr_html_()
    assert "Query 0" in html and "2 hits" in html and "<b>red</b>" in html
    assert re.search(r"<b>red</b><br>-?0\.\d{3}<br>", html)
    (picture,) = re.findall(r'src="data:image/jpeg;base64,([^"]*)"', html)
    assert Image.open(io.BytesIO(base64.b64decode(picture))).size == (96, 64)
    assert "no picture here" in html


def test_texts_are_escaped(tmp_path: Path) -> None:
    with open_project(tmp_path) as index:
        for shown in (index, index.search_ids(["b.png"], 3)):
            html = shown._repr_html_()
            assert "<script" not in html and html.count("&lt;script&gt;") >= 2


def test_an_index_shows_its_size_columns_and_some_images(tmp_path: Path) -> None:
    with open_project(tmp_path) as index:
        html = index._repr_html_()
    assert "3 images" in html and "label (String)" in html and html.count("<img") == 1


def test_only_the_first_queries_and_hits_are_shown(tmp_path: Path) -> None:
    names = [f"n{number}" for number in range(30)]
    with Index.open(create(tmp_path / "index", names)) as index:
        html = index.search_ids(names[:15], 20)._repr_html_()
        assert ImageHits.join([], 5, index.view)._repr_html_() == "<div>no queries</div>"
    assert html.count("20 hits") == 10 and html.count("no picture here") == 120
    assert "and 5 more queries" in html


def test_hits_whose_images_are_removed_meanwhile_are_still_shown(tmp_path: Path) -> None:
    create(tmp_path / "index", ["a", "bb"])
    with Index.open(tmp_path / "index", writable=True) as index:
        index.add_encoded(**images(["ccc"]), ids=["ccc"])
        hits = index.search_ids(["a"], 2)
        index.remove(["ccc"])
        assert "2 hits" in hits._repr_html_() and "ccc" in hits._repr_html_()
