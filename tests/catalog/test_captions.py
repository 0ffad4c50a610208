"""Texts of a caption file join the images that their keys name; one that fits none is refused."""

from pathlib import Path

import polars as pl
import pytest

from irgen.catalog.captions import copy_captions, have_captions_changed, join_captions
from irgen.catalog.captions import read_captions as read
from irgen.errors import CatalogError, SourceError

IMAGES = pl.DataFrame(
    {"id": ["1", "2", "3"], "path": ["a.jpg", "b.jpg", "c.jpg"], "label": ["cat", "cat", "dog"]}
)


def write(folder: Path, text: str) -> Path:
    path = folder / "captions.csv"
    path.write_text(text)
    return path


def test_several_rows_of_a_key_become_a_list_and_single_ones_a_text(tmp_path):
    path = write(tmp_path, "label;title;caption\ncat;Cat;soft fur\ndog;Dog;a bone\ncat;Cat;purrs\n")
    captions = read(path)
    assert captions.columns == ["label", "title", "caption"]
    assert captions["title"].to_list() == ["Cat", "Dog"]
    assert captions["caption"].to_list() == [["soft fur", "purrs"], ["a bone"]]


def test_numbers_are_no_texts(tmp_path):
    assert read(write(tmp_path, "id,price,text\n1,9,red shoe\n")).columns == ["id", "text"]


def test_a_parquet_file_is_read_too(tmp_path):
    table = pl.DataFrame({"path": ["a.jpg"], "text": ["a cat"], "size": [3]})
    table.write_parquet(tmp_path / "captions.parquet")
    assert read(tmp_path / "captions.parquet").rows() == [("a.jpg", "a cat")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,text\na,b c\n", "names no images: it has the columns name, text; give it a column"),
        ("id,price\n1,9\n", "has no texts; give it a column with words beside 'id'"),
    ],
)
def test_a_file_without_keys_or_texts_is_refused(tmp_path, text, message):
    with pytest.raises(SourceError, match=message):
        read(write(tmp_path, text))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SourceError, match=r"nowhere.csv cannot be read"):
        read(tmp_path / "nowhere.csv")


def test_captions_join_by_label_beside_the_columns_of_a_list(tmp_path):
    images = IMAGES.with_columns(metadata=pl.struct(price=pl.lit(3)))
    captions = read(write(tmp_path, "label,text\ncat,soft fur\nbird,sings\n"))
    joined, notes = join_captions(images, captions)
    assert joined["metadata"].to_list() == [
        {"price": 3, "text": "soft fur"},
        {"price": 3, "text": "soft fur"},
        {"price": 3, "text": None},
    ]
    assert notes == ["captions of 1 labels fit no image: 'bird'", "1 of 3 images have no caption"]


def test_captions_that_fit_no_image_are_refused(tmp_path):
    captions = read(write(tmp_path, "path,text\nx.jpg,soft fur\n"))
    message = r"none of the 1 paths is an image's, e.g. 'x.jpg'; the images' are 'a.jpg', 'b.jpg'"
    with pytest.raises(CatalogError, match=message):
        join_captions(IMAGES, captions)


def test_a_column_that_is_there_already_is_refused(tmp_path):
    images = IMAGES.with_columns(metadata=pl.struct(text=pl.lit("old")))
    captions = read(write(tmp_path, "id,text\n1,new words\n"))
    with pytest.raises(CatalogError, match="have a column 'text' already; rename one"):
        join_captions(images, captions)


def test_a_copy_follows_the_file_and_its_setting(tmp_path):
    folder, path = tmp_path / "download", write(tmp_path, "id,text\n1,red shoe\n")
    folder.mkdir()
    assert have_captions_changed(folder, "")
    copy_captions(folder, "")
    assert not have_captions_changed(folder, "") and have_captions_changed(folder, str(path))
    copy_captions(folder, str(path))
    assert not have_captions_changed(folder, str(path))
    write(tmp_path, "id,text\n1,blue shoe\n")
    assert have_captions_changed(folder, str(path))
    path.unlink()
    assert not have_captions_changed(folder, str(path)), "a machine without the file goes on"
