"""Which files count, and which folders say something."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irgen.catalog.sources.listing import (
    find_common_top,
    find_empty_folders,
    is_image,
    refuse_empty,
)
from irgen.errors import SourceError


@pytest.mark.parametrize(
    "ending", ["jpg", "JPEG", "Png", "gif", "bmp", "tif", "TIFF", "webp", "ppm", "pgm"]
)
def test_image_endings_count_whatever_their_case(ending: str) -> None:
    assert is_image(f"cat/1.{ending}")


@pytest.mark.parametrize(
    "path", ["LICENSE", "cat/.DS_Store", ".git/x.png", "__MACOSX/cat/._1.png", "cat/1.txt"]
)
def test_other_and_hidden_files_do_not_count(path: str) -> None:
    assert not is_image(path)


def test_a_top_folder_is_taken_off_only_if_it_says_nothing() -> None:
    assert find_common_top(["set/train/cat/1.png"], []) == "set/"
    assert find_common_top(["set/cat/1.png", "other/cat/1.png"], []) == ""
    assert find_common_top(["set/cat/1.png"], ["set/cat", "owl"]) == ""
    assert find_common_top(["set/cat/1.png"], ["set/cat", "__MACOSX", ".git"]) == "set/"
    assert find_common_top(["Test/cat/1.png"], []) == ""
    assert find_common_top(["cat/1.png", "cat/2.png"], []) == ""
    assert find_common_top(["1.png"], []) == ""


@given(st.sets(st.sampled_from(["a", "b", "a/b", "a/c", "b/d", "a/b/e"])))
def test_an_empty_folder_has_nothing_below_it(folders: set[str]) -> None:
    found = find_empty_folders(["a/b/1.png"], folders)
    for name in found:
        assert not any(other.startswith(name) for other in (*folders, "a/b/1.png"))
    assert found == sorted(found)


def test_an_empty_source_says_what_would_count() -> None:
    with pytest.raises(SourceError, match=r"shop holds no image.*jpg"):
        refuse_empty(0, "shop")
