"""``irgen search --html`` and ``--open``: a page with pictures."""

import hashlib
import re
import shutil
import webbrowser

import polars as pl
import pytest

from irgen.catalog import manifest
from irgen.catalog.shards import ShardWriter
from irgen.commands import search_sheet

IMAGE = 'src="data:image/png;base64,'


@pytest.fixture
def downloaded(project, png):
    """Pack the images of the index, as the stage download does."""
    folder, rows = project / "data" / "download", []
    with ShardWriter(folder, 1) as writer:
        for number in range(40):
            content = png(number)
            shard, offset = writer.add(f"{number}.png", content)
            row = {"key": f"{number}.png", "size": len(content), "etag": "", "revision": 1}
            row |= {"sha256": hashlib.sha256(content).hexdigest()}
            rows.append(row | {"shard": shard, "offset": offset, "version": None})
    manifest.write(folder, pl.DataFrame(rows, schema=manifest.SCHEMA), revision=1, source="test")


def test_a_sheet_shows_query_and_hits_with_label_score_and_probability(downloaded, project, run):
    outcome = run("search", "photos/003.png", "-k", 4, "--html", "sheet.html")
    assert outcome.status == 0 and outcome.out.splitlines()[0].startswith("query")
    assert f"the pictures are in {project / 'sheet.html'}" in outcome.err
    html = (project / "sheet.html").read_text()
    assert html.count(IMAGE) == 1 + 4 and "no picture" not in html
    assert "dogs/03.png" in html and ">dogs</span>" in html
    assert "1.000 · 90%" in html
    assert not re.search(r"https?://|<script|@import|url\(", html)


def test_without_the_download_ids_stand_in_for_pictures_and_are_counted(project, run):
    outcome = run("search", "photos/003.png", "-k", 4, "--html", "sheet.html")
    html = (project / "sheet.html").read_text()
    assert outcome.status == 0 and html.count(IMAGE) == 1
    assert html.count(">no picture</div>") == 4 and "dogs/03.png" in html
    assert "4 of 4 hits have no picture here" in outcome.err and "4 of 4 hits" in html
    assert "data/download" in outcome.err


def test_images_added_later_are_shown_whatever_becomes_of_the_file_that_was_read(
    project, run_ok, run, png
):
    run_ok("add", "photos/100.png")
    run("search", "photos/100.png", "-k", 1, "--html", "sheet.html")
    assert (project / "sheet.html").read_text().count(IMAGE) == 2
    (project / "photos" / "101.png").replace(project / "photos" / "100.png")
    for pictures in (1, 0):
        run("search", "--ids", "photos/100.png", "-k", 1, "--html", "sheet.html")
        assert (project / "sheet.html").read_text().count(IMAGE) == pictures
        shutil.rmtree(project / "uploads", ignore_errors=True)


def test_many_queries_have_a_contents_and_a_limit(downloaded, project, run, monkeypatch):
    monkeypatch.setattr(search_sheet, "PICTURES", 4)
    queries = ("photos/003.png", "photos/100.png", "photos/101.png")
    outcome = run("search", *queries, "-k", 2, "--html", "sheet.html", "--json")
    html = (project / "sheet.html").read_text()
    assert 'href="#query-2"' in html and 'id="query-2"' in html and "query-3" not in html
    assert "the first 2 of 3 queries" in html and "the first 2 of 3 queries" in outcome.err
    assert outcome.out.startswith("[")


def test_no_match_is_a_sheet_too(project, run):
    outcome = run("search", "photos/003.png", "--min-score", 2, "--html", "sheet.html")
    assert outcome.status == 0 and "no match" in (project / "sheet.html").read_text()


def test_open_shows_the_sheet_or_says_where_it_is(project, run, monkeypatch, tmp_path):
    addresses = []
    monkeypatch.setattr(webbrowser, "open", lambda url: bool(addresses.append(url)))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    outcome = run("search", "photos/003.png", "--open")
    (address,) = addresses
    assert address.startswith("file://") and address.endswith(".html")
    assert "no browser could be started: open " in outcome.err
    (page,) = tmp_path.glob("irgen-*.html")
    assert page.as_uri() == address and "no picture" in page.read_text()


@pytest.mark.parametrize("name", ["photos", "photos/003.png/sheet.html"])
def test_a_file_that_cannot_be_written_is_told(project, run, name):
    outcome = run("search", "photos/003.png", "--html", name)
    assert outcome.status == 2 and name in outcome.err.splitlines()[-1]
    assert (project / "photos" / "003.png").is_file()
