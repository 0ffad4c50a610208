"""The choice of queries to show, and their thumbnails."""

import base64
import io

import numpy as np
import polars as pl
import pytest
from PIL import Image

from irgen.evaluation import runs
from irgen.evaluation.query_set import QuerySet, RankedLists
from irgen.report import gallery


def test_the_choice_holds_the_worst_and_the_best_and_is_the_same_for_a_seed():
    quality = np.random.default_rng(0).random(100)
    chosen = gallery.choose(quality, 12, seed=3)
    rows = [row for row, _ in chosen]
    groups = list(dict.fromkeys(group for _, group in chosen))
    assert groups == [gallery.RANDOM, gallery.BEST, gallery.WORST]
    assert len(set(rows)) == 12
    assert set(np.argsort(quality)[:4]) <= set(rows)
    assert set(np.argsort(quality)[-3:]) <= set(rows)
    assert chosen == gallery.choose(quality, 12, seed=3)
    assert chosen != gallery.choose(quality, 12, seed=4)


@pytest.mark.parametrize(("n", "expected"), [(0, 0), (1, 1), (2, 2), (50, 5)])
def test_fewer_queries_than_asked_for_are_all_shown_once(n, expected):
    rows = [row for row, _ in gallery.choose(np.linspace(0, 1, 5), n, seed=0)]
    assert len(rows) == len(set(rows)) == expected


def test_queries_that_nothing_can_answer_are_not_chosen():
    chosen = gallery.choose(np.array([np.nan, 1.0, np.nan]), 3, seed=0)
    assert [row for row, _ in chosen] == [1]


def opened(uri):
    return Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "RGBA", "P"])
def test_a_large_image_is_shrunk_and_a_small_one_enlarged_by_whole_pixels(mode):
    assert opened(gallery.thumbnail(Image.new(mode, (500, 250)))).size == (224, 112)
    assert opened(gallery.thumbnail(Image.new(mode, (8, 7)))).size == (224, 196)
    assert opened(gallery.thumbnail(Image.new(mode, (160, 120)))).size == (160, 120)


def catalogue(labels, prefix=""):
    names = [f"{prefix}{row}.png" for row in range(len(labels))]
    table = {"id": names, "sha256": names, "label": labels}
    return pl.DataFrame(table, schema=dict.fromkeys(table, pl.String))


def run(ids):
    lists = RankedLists(np.array(ids), np.full(np.shape(ids), 0.5, np.float32))
    relevant = np.array([[item == 0 for item in row] for row in ids])
    return runs.to_table(lists, relevant, np.zeros((9, 2), np.int64))


def test_hits_come_with_their_marks_and_the_query_with_its_label():
    queries, database = catalogue(["a"], "q"), catalogue(["a", "b", None])
    (example,) = gallery.choose_examples(
        QuerySet.build(queries, database, 3),
        {"the index": run([[0, 2]])},
        str.upper,
        k=3,
        count=5,
        seed=0,
    )
    (row,) = example.rows
    assert example.query.title == "a" and example.query.mark == "plain"
    assert row.heading == "the index: 1 of 3 relevant" and row.empty == 1
    assert [(t.image, t.title, t.mark) for t in row.tiles] == [
        ("0.PNG", "a", "hit"),
        ("2.PNG", gallery.NAMELESS, "miss"),
    ]


def test_without_labels_neighbours_are_shown_by_id_and_rated_by_agreement():
    queries, database = catalogue([None, None]), catalogue([None] * 5)
    examples = gallery.choose_examples(
        QuerySet.build(queries, database, 2),
        {"the index": run([[1, 2], [3, 4]])},
        str.upper,
        k=2,
        count=2,
        seed=0,
        neighbours=run([[2, 0], [3, 4]]),
    )
    headings = {example.query.title: example.rows[0].heading for example in examples}
    assert headings["0.png"].startswith("the index: 1 of 2 are also among")
    assert headings["1.png"].startswith("the index: 2 of 2 are also among")
    marks = {e.query.title: [(t.title, t.mark) for t in e.rows[0].tiles] for e in examples}
    assert marks["0.png"] == [("1.png", "plain"), ("2.png", "shared")]
