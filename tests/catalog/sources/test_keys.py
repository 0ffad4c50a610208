"""Keys of images: names that a table can hold, and which folders say something."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irgen.catalog.sources.keys import (
    find_common_top,
    find_empty_folders,
    make_keys,
    name_files,
)
from irgen.catalog.sources.selection import Selection
from irgen.errors import SourceError

NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


def test_accents_are_composed_so_that_one_name_is_one_folder() -> None:
    assert NFC != NFD
    assert make_keys([f"{NFD}/1.jpg", f"{NFC}/2.jpg"], "shop") == {
        f"{NFC}/1.jpg": f"{NFD}/1.jpg",
        f"{NFC}/2.jpg": f"{NFC}/2.jpg",
    }


def test_files_that_differ_in_accents_or_case_alone_all_have_a_key() -> None:
    paths = [f"a/{NFD}.jpg", f"a/{NFC}.jpg", "a/cafe.jpg", "a/CAFE.jpg", "A/cafe.jpg"]
    keys = make_keys(paths, "shop")
    assert sorted(keys.values()) == sorted(paths)
    assert keys[f"a/{NFC}.jpg"] == f"a/{NFC}.jpg"


ODD = [
    "two\nlines",
    "q\"uo'te",
    "😀",
    "مرحبا",
    "-rf",
    "a?b#c%20",
    "x" * 251,
    "\x1b[2J",
    "a\\b",
    " ",
]


@pytest.mark.parametrize("name", ODD)
def test_odd_characters_survive(name: str) -> None:
    assert make_keys([f"{name}/{name}.jpg"], "shop") == {f"{name}/{name}.jpg": f"{name}/{name}.jpg"}


@given(st.sets(st.text(alphabet="eE/a\u0301\u00e9\udce9\\", min_size=1, max_size=6)))
def test_every_path_has_a_key_of_its_own_that_a_table_can_hold(paths: set[str]) -> None:
    keys = make_keys(paths, "shop")
    assert sorted(keys.values()) == sorted(paths)
    assert all(key.encode() for key in keys)


def test_two_files_whose_escaped_names_are_one_are_refused() -> None:
    with pytest.raises(SourceError, match="two files would both be named"):
        make_keys(["caf\udce9.jpg", "caf\\udce9.jpg"], "shop")


def test_a_top_folder_is_taken_off_only_if_it_says_nothing() -> None:
    assert find_common_top(["set/train/cat/1.png"], []) == "set/"
    assert find_common_top(["set/cat/1.png", "other/cat/1.png"], []) == ""
    assert find_common_top(["set/cat/1.png"], ["set/cat", "owl"]) == ""
    assert find_common_top(["set/cat/1.png"], ["set/cat", ".config"]) == "set/"
    assert find_common_top(["Test/cat/1.png"], []) == ""
    assert find_common_top(["cat/1.png", "cat/2.png"], []) == ""
    assert find_common_top(["1.png"], []) == ""


def test_a_few_images_beside_the_top_folder_change_nothing() -> None:
    assert find_common_top(["set/cat/1.png", "set/dog/1.png", "cover.png"], []) == "set/"
    assert find_common_top(["set/cat/1.png", "cover.png", "logo.png"], []) == ""


def test_a_slash_at_the_start_of_every_key_of_a_bucket_is_taken_off() -> None:
    selection = Selection(files={"/cat/1.png": 0}, folders=["/cat"], skipped={}, ignored={})
    assert name_files(selection, "s3://shop/").paths == {"cat/1.png": "/cat/1.png"}


@given(st.sets(st.sampled_from(["a", "b", "a/b", "a/c", "b/d", "a/b/e"])))
def test_an_empty_folder_has_nothing_below_it(folders: set[str]) -> None:
    empty = find_empty_folders(["a/b/1.png"], folders)
    for name in empty:
        assert not any(other.startswith(name) for other in (*folders, "a/b/1.png"))
    assert empty == sorted(empty)
