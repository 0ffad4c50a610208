"""Omniglot as its publisher lays it out."""

from collections.abc import Callable

import pytest

from irgen.errors import CatalogError

pytestmark = pytest.mark.filterwarnings("ignore:Omniglot")


def drawings(folder: str, alphabet: str, number: int) -> dict[str, None]:
    character = f"{folder}/{alphabet}/character01"
    return {f"{character}/{number:04d}_{i:02d}.png": None for i in range(1, 5)}


BACKGROUND = drawings("images_background", "Balinese", 108)
EVALUATION = drawings("images_evaluation", "Angelic", 965)


def test_unseen_alphabets_ask_each_other_in_the_standard_protocol(
    write: Callable, catalogued: Callable
) -> None:
    tables = catalogued(write(BACKGROUND | EVALUATION), protocol="standard")
    assert tables.about["format"] == "omniglot"
    assert tables.labels("train") == {"Balinese/character01"} and len(tables.ids("train")) == 4
    assert tables.labels("queries") == {"Angelic/character01"}
    assert tables.ids("queries") == tables.ids("database")
    assert tables.ids("train")[0] == "Balinese/character01/0108_01.png"


def test_as_given_drawings_of_every_character_are_drawn_as_queries(
    write: Callable, catalogued: Callable
) -> None:
    tables = catalogued(write(BACKGROUND | EVALUATION), query_fraction=0.25)
    assert tables.labels("queries") == {"Balinese/character01", "Angelic/character01"}
    assert len(tables.ids("queries")) == 2 and len(tables.ids("database")) == 6


def test_one_of_the_two_sets_may_be_there_alone(write: Callable, catalogued: Callable) -> None:
    source = write(BACKGROUND)
    assert len(catalogued(source, query_fraction=0.25).ids("queries")) == 1
    with pytest.raises(CatalogError, match=r"no query: protocol 'standard' \(unseen alphabets"):
        catalogued(source, protocol="standard")


def test_the_same_drawing_twice_and_no_drawing_are_clear_errors(
    write: Callable, catalogued: Callable
) -> None:
    small = drawings("images_background_small1", "Balinese", 108)
    with pytest.raises(CatalogError, match=r"are the same drawing.*keep one"):
        catalogued(write(BACKGROUND | small))
    with pytest.raises(CatalogError, match=r"no image at images_background/.*found e.g. cat/1.png"):
        catalogued(write({"cat/1.png": None}, "cats"), format="omniglot")
