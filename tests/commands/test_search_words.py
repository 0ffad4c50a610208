"""``irgen search`` by words: what counts as words, how they are read, and every mistake."""

import json
import shutil

import pytest

from irgen.index.index import Index

from ..captioned import EACH, NAMES


@pytest.fixture
def shop(captioned, tmp_path, monkeypatch):
    """Return a copy of the project of pictures with captions, as the current folder."""
    shutil.copytree(captioned, tmp_path / "shop")
    monkeypatch.chdir(tmp_path / "shop")
    return tmp_path / "shop"


def labels(run_ok, *arguments):
    """Return the labels of each query's hits."""
    answer = json.loads(run_ok("search", *arguments, "--json", "-k", EACH))
    return [{hit["metadata"]["label"] for hit in query["hits"]} for query in answer]


def test_words_find_images_in_a_table_without_a_probability(shop, run):
    outcome = run("search", "green cucumber", "-k", 3)
    lines = outcome.out.splitlines()
    assert lines[0].split() == ["query", "rank", "id", "score", "found", "by", "label"]
    assert len(lines) == 2 + 3 and all(line.split()[-1] == "cucumber" for line in lines[2:])
    assert all("retriever" in line or "embedding" in line for line in lines[2:])
    assert (outcome.status, outcome.err) == (0, "")


def test_several_texts_are_several_queries_and_options_hold(shop, run_ok):
    assert labels(run_ok, "red apple", "shirt") == [{"apple"}, {"shirt"}]
    assert labels(run_ok, "red apple", "--allow", "label = 'shirt'") == [{"shirt"}]
    assert labels(run_ok, "red apple", "--words", "banana") == [{"banana"}]


def test_a_picture_is_searched_together_with_words(shop, run_ok, run):
    assert labels(run_ok, NAMES[0], "--with", "round red apple") == [{"apple"}]
    outcome = run("search", NAMES[0], "--with", "apple xyzzy", "-k", 2, "--json")
    assert "no image's texts have “xyzzy”: left out of “apple xyzzy”" in outcome.err
    (query,) = json.loads(outcome.out)
    assert query["query"] == NAMES[0] and query["unknown_words"] == ["xyzzy"]


def test_unknown_words_are_named_and_alone_are_an_error(shop, run):
    outcome = run("search", "green xyzzy cucumber", "--csv", "-k", 2)
    assert outcome.status == 0 and outcome.out.count("cucumber") >= 2
    assert "“xyzzy”: left out of “green xyzzy cucumber”" in outcome.err
    refused = run("search", "xyzzy")
    assert (refused.status, refused.out) == (2, "")
    assert refused.err == ("irgen search: no image's texts have “xyzzy”: search for other words\n")


def test_without_a_text_encoder_full_text_search_answers_and_says_so(project, run):
    outcome = run("search", "cats", "-k", 40)
    rows = outcome.out.splitlines()[2:]
    assert len(rows) == 10 and all("  texts" in row for row in rows)
    assert "full-text search answered" in outcome.err and "words.md" in outcome.err


def test_hits_for_words_are_explained_and_shown(shop, run_ok):
    table = run_ok("search", "red apple", "-k", 3, "--explain").split("\n\n")[1]
    assert len(table.strip().splitlines()) == 2 + 3
    both = run_ok("search", NAMES[0], "--with", "red apple", "-k", 3, "--explain")
    assert len(both.split("\n\n")[1].strip().splitlines()) == 2 + 3
    run_ok("search", "red <apple>", "-k", 3, "--html", "sheet.html")
    html = (shop / "sheet.html").read_text()
    assert "red &lt;apple&gt;" in html and "no picture" not in html


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("phto.jpg",), "phto.jpg: No such file"),
        (("photos/apple",), "photos/apple: No such file"),
        (("apple/",), "apple/: Is a directory"),
        (("shirt/0.png", "red apple"), "irgen search shirt/0.png --with 'red apple'"),
        (("red apple", "--with", "blue"), "'red apple' is no image file"),
        (("--ids", NAMES[0], "--with", "blue"), "--with goes with image files"),
        (("red apple", "--min-probability", 0.5), "min_probability: nothing says"),
        (("?!",), "no letter or digit"),
        (("",), "no letter or digit"),
        (("x" * 5000,), "no image's texts have “xxx"),
    ],
)
def test_a_mistake_is_told_in_one_line(shop, run, arguments, says):
    outcome = run("search", *arguments)
    assert (outcome.status, outcome.out) == (2, "") and says in outcome.err
    assert len(outcome.err.splitlines()) == 1


def test_a_picture_with_words_needs_a_text_encoder(project, refused):
    assert "no text encoder" in refused("search", "photos/003.png", "--with", "cats")
    assert "no text encoder" in refused("search", "cats", "--explain")


def test_a_release_and_a_working_copy_have_the_text_encoder(shop, run_ok):
    run_ok("add", "apple/1.png", "--upsert")
    with Index.open(shop / "index") as index:
        assert index.text_method == "text encoder"
    assert labels(run_ok, "yellow banana") == [{"banana"}]
