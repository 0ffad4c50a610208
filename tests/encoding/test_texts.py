"""Wordings are drawn from an image's own texts, and fit the images that have all of these."""

import numpy as np
import polars as pl
import pytest

from irgen.encoding.texts import ImageTexts

TABLE = pl.DataFrame(
    {"id": ["a", "c", "d"], "texts": [["Green apple", "sour!"], ["?"], ["green apple", "sour!"]]}
)


@pytest.fixture
def texts() -> ImageTexts:
    return ImageTexts.build(pl.Series(["d", "b", "a", "c"]), TABLE)


def test_images_without_a_word_have_no_text(texts):
    assert texts.rows.tolist() == [0, 2]
    assert texts.texts.to_list() == ["green apple", "sour!", "Green apple"]
    assert [texts.of_image(row).tolist() for row in range(4)] == [[0, 1], [], [2, 1], []]
    assert list(texts.split()) == [["green", "apple"], ["sour"], ["green", "apple"]]


def test_a_wording_has_words_of_the_images_texts_and_never_none(texts):
    drawn = [texts.draw(2, 0.9, np.random.default_rng(seed)) for seed in range(200)]
    assert all(wording.words for wording in drawn)
    assert {word for wording in drawn for word in wording.words} == {"green", "apple", "sour"}
    assert {tuple(sorted(wording.texts)) for wording in drawn} == {(1,), (2,), (1, 2)}
    whole = [texts.draw(2, 0.0, np.random.default_rng(seed)) for seed in range(20)]
    assert any(wording.words == ["sour", "green", "apple"] for wording in whole)


def test_a_wording_fits_the_images_that_have_all_its_texts(texts):
    wordings = [texts.draw(2, 0.0, np.random.default_rng(seed)) for seed in range(20)]
    fitting = texts.mark_fitting(wordings, [0, 2])
    assert fitting[:, 1].all()
    only_sour = [wording.texts == [1] for wording in wordings]
    assert any(only_sour) and fitting[:, 0].tolist() == only_sour
