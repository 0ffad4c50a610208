"""Columns with words are texts; what else the user's columns hold is not."""

import polars as pl
import pytest

from irgen.catalog.texts import choose_columns, collect_texts
from irgen.errors import CatalogError

IMAGES = pl.DataFrame(
    {
        "id": ["b", "a", "c"],
        "label": ["cat", "dog", None],
        "metadata": [
            {"title": "Tom", "price": 3, "url": "https://x.de/tom", "more": ["a cat", None]},
            {"title": " ", "price": 4, "url": "", "more": None},
            {"title": None, "price": 5, "url": None, "more": []},
        ],
    }
)


def test_columns_with_words_are_chosen_and_the_label_where_labels_are_used():
    assert choose_columns(IMAGES, (), (), labelled=True) == ["title", "more", "label"]
    assert choose_columns(IMAGES, (), ("title",), labelled=False) == ["more"]
    assert choose_columns(IMAGES.drop("metadata"), (), (), labelled=True) == []


def test_named_columns_are_taken_and_others_refused():
    assert choose_columns(IMAGES, ("label",), (), labelled=True) == ["label"]
    with pytest.raises(CatalogError, match="'price' holds no text; allowed: title, more, label"):
        choose_columns(IMAGES, ("price",), (), labelled=True)
    with pytest.raises(CatalogError, match="'titel' is not there"):
        choose_columns(IMAGES, ("titel",), (), labelled=True)


def test_blank_texts_and_images_without_a_text_are_left_out():
    texts = collect_texts(IMAGES, ["title", "more", "label"])
    assert texts.rows() == [("a", ["dog"]), ("b", ["Tom", "a cat", "cat"])]
    assert not len(collect_texts(IMAGES, []))
