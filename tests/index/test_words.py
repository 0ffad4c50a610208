"""Search by words: which images have them, in what order, and while the index changes."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from irgen.errors import IndexingError
from irgen.index.index import Index
from irgen.index.words import MOST_WORDS, TextTable

from .conftest import create, images

TABLE = pl.DataFrame(
    {
        "id": ["shop/red-1.jpg", "b", "c", "d", "e"],
        "path": ["shop/red-1.jpg", "winter/b.png", None, None, None],
        "title": ["A summer dress", "A red dress for cold days", "Robe d'été", None, "Red, red!"],
        "sha256": ["feed", "feed", None, None, None],
        "tags": [["new"], ["sale", "new arrival"], [], None, [None]],
        "price": [1.0, 2.0, 3.0, 4.0, 5.0],
    }
)


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    create(tmp_path / "index", TABLE["id"], items=TABLE)
    with Index.open(tmp_path / "index", writable=True) as index:
        yield index


def ids(index: Index, words: str, allow: str | None = None) -> list[str]:
    return index.view.ids(index.matching_rows(index.view, allow, words))


@pytest.mark.parametrize(
    ("words", "matches"),
    [
        ("dress", ["b", "shop/red-1.jpg"]),
        ("DRESS red", ["b", "shop/red-1.jpg"]),  # in any order, in capitals, and in the id
        ("red dr", ["b", "shop/red-1.jpg"]),  # the last word is not finished
        ("dr red", []),
        ("ete", ["c"]),
        ("ÉTÉ", ["c"]),
        ("winter", ["b"]),  # of a path that is not the id
        ("arrival", ["b"]),
        ("feed", []),  # of a SHA-256
        ("e", ["c", "e"]),  # ete
    ],
)
def test_an_image_has_all_the_words_in_its_id_and_texts(index, words, matches) -> None:
    assert sorted(ids(index, words)) == matches


def test_the_best_match_comes_first(index) -> None:
    assert ids(index, "red")[0] == "e"


def test_words_and_a_filter_combine(index) -> None:
    assert ids(index, "dress", "price > 1") == ["b"]
    assert ids(index, "dress", "price > 9") == []


def test_changes_are_searched_at_once_and_after_a_compaction(index) -> None:
    assert ids(index, "boots") == []
    table = pl.DataFrame({"title": ["black boots"]})
    index.add_encoded(**images(["f"]), ids=["f"], metadata=table)
    assert ids(index, "boots") == ["f"]
    index.upsert_encoded(
        **images(["f"], 1), ids=["f"], metadata=pl.DataFrame({"title": ["white boots"]})
    )
    assert ids(index, "black") == [] and ids(index, "white boots") == ["f"]
    index.upsert_encoded(**images(["f"]), ids=["f"], metadata=table)  # as it was
    assert ids(index, "black") == ["f"] and ids(index, "white") == []
    index.remove(["b"])
    index.compact()
    assert ids(index, "black") == ["f"] and ids(index, "dress") == ["shop/red-1.jpg"]


def test_a_table_of_many_lost_texts_is_built_again(index, monkeypatch) -> None:
    monkeypatch.setattr("irgen.index.words.SPARE", 0)
    for version in range(30):
        title = pl.DataFrame({"title": [f"number {version}"]})
        index.upsert_encoded(**images(["e"]), ids=["e"], metadata=title)
        assert ids(index, f"number {version}") == ["e"]
        table = index._word_search._table
        assert table is not None and len(table) <= 2 * len(index) + 1


def test_a_search_by_stored_images_finds_only_those_with_the_words(index) -> None:
    options = replace(index.options(9), words="red", candidates=50)
    hits = index.search_ids(["d"], 9, options).table()
    assert sorted(hits["id"]) == ["b", "e", "shop/red-1.jpg"]
    hits = index.search_ids(["d"], 9, replace(options, allow=["b", "c"])).table()
    assert hits["id"].to_list() == ["b"]


@pytest.mark.parametrize("words", ["", " - ", '"', "*", "()"])
def test_words_without_a_letter_are_an_error(index, words) -> None:
    with pytest.raises(IndexingError, match="no letter or digit"):
        ids(index, words)


def test_too_many_words_are_an_error(index) -> None:
    assert ids(index, "red " * MOST_WORDS) != []
    with pytest.raises(IndexingError, match="51 are too many; allowed: 50"):
        ids(index, "red " * 51)


@given(st.text(max_size=60))
def test_no_character_means_anything_in_a_query(text) -> None:
    table = TextTable()
    try:
        terms = table._split(text)
    except IndexingError:
        return
    expression = " ".join(f'"{term}"' for term in terms)
    table._connection.execute("INSERT INTO texts (rowid, text) VALUES (7, ?)", (text,))
    matches = table._connection.execute(
        "SELECT rowid FROM texts WHERE texts MATCH ?", (expression,)
    )
    assert matches.fetchall() == [(7,)]


@pytest.mark.parametrize(
    ("words", "same"),
    [
        ("red -dress", "red dress"),
        ("^red", "red"),
        ('"red', "red"),
        ("NOT red", "not red"),
        ('red" OR "b', "red or b"),
        ("title:red", "title red"),
        ("NEAR(a b)", "near a b"),
        ("{id}: dr*", "id dr"),
        ("red\ud800", "red"),
    ],
)
def test_the_syntax_of_the_full_text_search_is_text(index, words, same) -> None:
    assert ids(index, words) == ids(index, same)


def test_the_search_by_words_is_measured(tmp_path: Path) -> None:
    create(tmp_path / "index", TABLE["id"], items=TABLE)
    script = Path(__file__).parents[2] / "benchmarks" / "words.py"
    command = [
        sys.executable,
        str(script),
        "--index",
        str(tmp_path / "index"),
        "red dress",
        "boots",
    ]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    assert "5 images: first search" in ended.stdout and "red dress" in ended.stdout
