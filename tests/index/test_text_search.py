"""Search by words: the retriever predicts codes from them, or full-text search answers."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from irgen.errors import IndexingError, UnknownWordsError
from irgen.index.index import Index
from irgen.index.text_query import TextQuery

from .. import tiny
from ..captioned import CAPTIONS, EACH, NAMES, TITLES, items, labels_of, pictures

LABELS = ["apple", "cucumber", "banana", "shirt"]


@pytest.fixture
def folder(captioned: Path, tmp_path: Path) -> Path:
    with Index.open(captioned / "data" / "index") as index:
        index.save(tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture
def index(folder: Path) -> Iterator[Index]:
    with Index.open(folder, writable=True, precision="fp32") as opened:
        yield opened


@pytest.fixture
def without_encoder(make_index, tmp_path: Path) -> Iterator[Index]:
    """Yield an index of the same pictures and captions whose models read no words."""
    folder = make_index(tmp_path / "plain", pictures(), items(), None)
    with Index.open(folder, writable=True, precision="fp32") as opened:
        yield opened


def search(index: Index, text: str, k: int = EACH, **changes):
    """Return the ids for one text, with some options changed."""
    hits = index.search_text([text], k, replace(index.options(k), **changes))
    return [name for name in hits.ids[0] if name is not None]


@pytest.mark.parametrize(
    ("text", "label"),
    [
        *zip(CAPTIONS, LABELS, strict=True),
        ("a Banana that is YELLOW and ripe", "banana"),
        ("shirt: striped, blue!", "shirt"),
        ("cucumber", "cucumber"),
    ],
)
def test_words_find_the_images_whose_texts_they_are_in_any_wording(index, text, label) -> None:
    assert labels_of(search(index, text)) == {label}


def test_texts_and_cosines_sort_together_and_nothing_says_how_probable_a_hit_is(index) -> None:
    hits = index.search_text(["red apple", "blue shirt"], 10)
    assert (np.diff(hits.scores) <= 0).all() and np.isneginf(hits.same_label).all()
    assert (hits.scores <= 1).all() and (hits.scores >= 0).all()
    for ids, label in zip(hits.ids, ("apple", "shirt"), strict=True):
        assert labels_of(ids[:EACH]) == {label} and label not in labels_of(ids[EACH:])
    assert (hits.scores[:, :EACH] >= 0.6).all() and (hits.scores[:, EACH:] <= 0.4).all()
    for query in range(2):
        nearness = hits.cosine[query, :EACH]
        assert (np.diff(nearness) <= 1e-6).all(), "of equal texts the nearest come first"
    assert hits.table()["same_label"].null_count() == 20
    with pytest.raises(IndexingError, match="min_probability: nothing says"):
        search(index, "red apple", min_probability=0.5)


def test_an_image_whose_texts_match_is_found_though_its_picture_says_nothing(index) -> None:
    index.add([tiny.picture(3, 70)], ["odd.png"], pl.DataFrame({"title": ["ripe yellow banana"]}))
    hits = index.search_text(["ripe yellow banana"], 30, replace(index.options(30), beams=1))
    (place,) = np.flatnonzero(hits.ids[0] == "odd.png")
    assert hits.scores[0, place] > 0.5 and hits.cosine[0, place] < hits.cosine[0, 0]
    index.remove(["odd.png"])
    assert "odd.png" not in search(index, "ripe yellow banana", 30)


def test_unknown_words_are_left_out_and_named(index) -> None:
    (known,) = index.search_text(["green cucumber"], 5).ids
    hits = index.search_text(["Green xyzzy cucumber Plugh xyzzy"], 5)
    assert hits.texts == (TextQuery("Green cucumber", ("xyzzy", "Plugh")),)
    assert hits.ids[0].tolist() == known.tolist()


def test_a_text_that_was_read_is_searched_as_it_was_read(index) -> None:
    (text,) = index.read_words(["green xyzzy cucumbers"])
    hits = index.search_text([text, "green cucumber"], 5)
    assert hits.texts[0] is text and hits.ids[0].tolist() == hits.ids[1].tolist()


def test_another_form_of_a_word_is_read_in_its_place(index, without_encoder) -> None:
    for searched in (index, without_encoder):
        hits = searched.search_text(["Green cucumbers, bananas!"], 5)
        (text,) = hits.texts
        assert (text.text, text.unknown) == ("Green cucumber banana", ())
        assert text.forms == (("cucumbers", "cucumber"), ("bananas", "banana"))
        assert text.is_full_text == (searched is without_encoder)
    index.add([tiny.picture(9, 0)], ["new.png"], pl.DataFrame({"title": ["a pomelo"]}))
    hits = index.search_text(["pomelos"], 3)
    assert hits.ids[0, 0] == "new.png" and hits.texts[0].is_full_text
    index.remove(["new.png"])
    with pytest.raises(UnknownWordsError):
        index.search_text(["pomelos"])


def test_a_text_of_unknown_words_alone_is_refused_with_these(index) -> None:
    with pytest.raises(UnknownWordsError, match="have “xyzzy” or “plugh”: search") as error:
        index.search_text(["red apple", "xyzzy plugh"])
    assert error.value.words == ["xyzzy", "plugh"]
    with pytest.raises(IndexingError, match="no letter or digit"):
        index.search_text(["?!"])
    with pytest.raises(IndexingError, match="60 words are too many; allowed: 50"):
        index.search_text([" ".join(f"word{number}" for number in range(60))])
    with pytest.raises(IndexingError, match="not the one string 'red apple'"):
        index.search_text("red apple")


def test_options_hold_as_for_images(index) -> None:
    assert labels_of(search(index, "red apple", allow="label = 'shirt'")) == {"shirt"}
    assert labels_of(search(index, "red apple", words="banana")) == {"banana"}
    assert len(search(index, "red apple", 30)) == len(NAMES)
    assert len(search(index, "red apple", 30, distinct=-1.0)) == 1
    assert not search(index, "red apple", min_score=1.1)
    by_code = index.search_text(["red apple"], 5, replace(index.options(5), rerank=False))
    assert np.array_equal(by_code.scores, by_code.log_probability)


def test_images_that_are_added_are_found_by_words_at_once_and_removed_ones_no_more(index) -> None:
    before = search(index, "ripe banana", 30)
    index.add([tiny.picture(2, 77)], ["new.png"], pl.DataFrame({"title": ["ripe yellow banana"]}))
    assert "new.png" in search(index, "ripe banana", EACH + 1)
    index.remove(["new.png"])
    assert search(index, "ripe banana", 30) == before


def test_words_that_came_after_the_training_are_found_by_full_text_search(index) -> None:
    with pytest.raises(UnknownWordsError):
        index.search_text(["pomelo"])
    index.add([tiny.picture(9, 0)], ["new.png"], pl.DataFrame({"title": ["a pomelo"]}))
    hits = index.search_text(["red apple", "pomelo", "blue shirt"], 3)
    assert [text.is_full_text for text in hits.texts] == [False, True, False]
    assert hits.ids[1].tolist() == ["new.png", None, None] and hits.scores[1, 0] > 0
    assert labels_of(hits.ids[0]) == {"apple"} and labels_of(hits.ids[2]) == {"shirt"}


def test_without_a_text_encoder_full_text_search_answers_with_any_of_the_words(
    without_encoder,
) -> None:
    index = without_encoder
    assert index.text_method == "full-text search"
    hits = index.search_text(["green cucumber or banana xyzzy"], 30)
    assert hits.texts == (TextQuery("green cucumber banana", ("or", "xyzzy"), is_full_text=True),)
    assert labels_of(hits.ids[0, :EACH]) == {"cucumber"}  # it has two of the words
    assert labels_of(hits.ids[0]) == {"cucumber", "banana"}
    assert np.isneginf(hits.cosine[0]).all() and (np.diff(hits.scores[0, : 2 * EACH]) <= 0).all()
    assert search(index, "cucumber", 30, allow="price % 2 = 0", min_score=0.1)
    assert not search(index, "cucumber", 30, allow="label = 'shirt'")
    assert len(search(index, "cucumber", 30, distinct=-1.0)) == 1
    with pytest.raises(UnknownWordsError, match="“xyzzy”"):
        index.search_text(["xyzzy"])
    with pytest.raises(IndexingError, match="no text encoder"):
        index.search_composed([pictures()[0]], ["red"])


def test_an_index_of_images_without_texts_says_how_to_give_them_some(make_index, tmp_path) -> None:
    table = items().select("id", "path", "sha256", pl.lit(None, pl.String).alias("label"))
    with Index.open(make_index(tmp_path / "bare", pictures(), table, None)) as index:
        assert index.text_method is None and not index.search_text([], 3).texts
        with pytest.raises(IndexingError, match="download: captions"):
            index.search_text(["apple"])


def test_a_picture_and_words_together_find_what_is_like_both(index) -> None:
    apple = pictures()[0]
    alone, text = index.search([apple], 24), index.search_text(["blue striped shirt"], 24)
    both = index.search_composed([apple, apple], ["blue striped shirt", "red apple"], 24)
    ranks = [
        dict(zip(hits.ids[0].tolist(), range(24), strict=True)) for hits in (alone, text, both)
    ]
    mean = [np.mean([rank[name] for name in NAMES if "shirt" in name]) for rank in ranks]
    assert mean[1] <= mean[2] < mean[0]
    assert labels_of(both.ids[1, :EACH]) == {"apple"}
    assert [text.text for text in both.texts] == ["blue striped shirt", "red apple"]
    assert np.isneginf(both.same_label).all() and np.isneginf(both.untaught).all()


def test_a_picture_with_words_is_refused_as_each_of_them_is(index) -> None:
    with pytest.raises(IndexingError, match="2 texts for 1 images"):
        index.search_composed([pictures()[0]], ["red", "blue"])
    with pytest.raises(UnknownWordsError):
        index.search_composed([pictures()[0]], ["xyzzy"])


def test_many_texts_are_read_in_batches_and_none_in_none(index) -> None:
    texts = [TITLES[n % len(TITLES)] for n in range(70)]
    hits = index.search_text(texts, 3)
    assert hits.ids.shape == (70, 3) and len(hits.first(2).texts) == 2
    assert hits.ids[-1].tolist() == index.search_text(texts[-1:], 3).ids[0].tolist()
    assert index.search_text([], 3).ids.shape == (0, 3)


def test_an_explanation_by_words_is_of_what_the_retriever_predicts_from_them(index) -> None:
    hits = index.search_text(["red apple"], 3, replace(index.options(3), rerank=False))
    for query in (index.read_text("red apple"), index.read_text("red apple", pictures()[0])):
        first, *_ = index.explain(query, hits.ids[0].tolist())
        assert first.id == hits.ids[0, 0] and len(first.code) == 3
    alone = index.explain(index.read_text("red apple"), hits.ids[0].tolist())
    assert [each.log_probability for each in alone] == pytest.approx(
        hits.log_probability[0].tolist(), abs=1e-4
    )


def test_indexes_share_a_text_encoder(index, folder) -> None:
    with Index.open(folder) as other:
        other.share_models(index)
        assert other.models.text_encoder is index.models.text_encoder is not None
