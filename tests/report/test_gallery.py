"""The choice of queries to show, and their thumbnails."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from irgen.report import gallery


def test_the_choice_holds_the_worst_and_the_best_and_is_the_same_for_a_seed():
    quality = np.random.default_rng(0).random(100)
    chosen = gallery.choose(quality, 12, seed=3)
    rows = [row for row, _ in chosen]
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
    assert opened(gallery.thumbnail(Image.new(mode, (500, 250)))).size == (96, 48)
    assert opened(gallery.thumbnail(Image.new(mode, (8, 7)))).size == (96, 84)
