"""A source is looked at before it is copied: what it holds, and what will be left out."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from irgen.catalog.sources.open import open_source
from irgen.catalog.survey import SAMPLE, Survey, is_drawing, is_grey, survey_source
from irgen.errors import CatalogError, SourceError
from irgen.params import Download


def photo(number: int = 0, size: tuple[int, int] = (60, 40), grey: bool = False) -> bytes:
    """Return a JPEG of smooth colours, a different one for each number."""
    generator = np.random.default_rng(number)
    small = Image.fromarray(generator.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    file = io.BytesIO()
    small.convert("L" if grey else "RGB").resize(size, Image.Resampling.BICUBIC).save(file, "JPEG")
    return file.getvalue()


def drawing() -> bytes:
    pixels = np.full((80, 80), 255, np.uint8)
    pixels[20:24, 10:70] = 0
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def write(folder: Path, contents: dict[str, bytes]) -> Path:
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def look(path: Path | str) -> Survey:
    return survey_source(open_source(Download(source=str(path))))


def test_class_folders_are_labels_and_sizes_and_colours_are_measured(tmp_path):
    names = ["cat/1.jpg", "cat/2.jpg", "cat/3.jpg", "dog/1.jpg"]
    survey = look(write(tmp_path, {name: photo(i) for i, name in enumerate(names)}))
    assert survey.images == 4 and survey.format == "folders"
    assert list(survey.labels.items()) == [("cat", 3), ("dog", 1)]
    assert survey.sample.sizes == ((60, 40),) * 4
    assert survey.sample.grey == 0 and survey.sample.drawings == 0
    assert not survey.left_out and not survey.skipped and not survey.no_labels


def test_what_is_left_out_is_counted_with_its_reason(tmp_path):
    folder = write(tmp_path, {"cat/1.jpg": photo(), "cat/2.jpg": photo(1)[:500]})
    write(folder, {"dog/a.NEF": b"x", "dog/b.nef": b"y", "README": b"z", ".git/x.zip": b""})
    survey = look(folder)
    assert survey.skipped == {".nef": 2, "": 1}
    assert survey.left_out == {"class folders without an image": 1}
    assert "damaged" in survey.sample.damaged["cat/2.jpg"]


def test_an_image_that_cannot_be_had_is_named_with_its_reason(tmp_path):
    folder = write(tmp_path, {"cat/1.jpg": photo(), "dog/1.jpg": photo(1)})
    (folder / "cat" / "2.jpg").symlink_to("gone.jpg")
    survey = look(folder)
    assert survey.images == 2 and survey.left_out == {"cannot be had": 1}
    assert "gone.jpg" in survey.sample.damaged["cat/2.jpg"]


def test_folders_that_are_no_classes_give_no_labels_and_the_reason(tmp_path):
    survey = look(write(tmp_path, {"2023/05/1.jpg": photo(), "2024/1.jpg": photo(1)}))
    assert survey.images == 2 and not survey.labels
    assert "2023/05/1.jpg lies too deep" in survey.no_labels
    flat = look(write(tmp_path / "flat", {"1.jpg": photo()}))
    assert flat.format == "images" and "no class folders" in flat.no_labels
    roles = look(write(tmp_path / "roles", {"train/1.jpg": photo(), "test/1.jpg": photo(1)}))
    assert roles.format == "images" and "(train, test and the like are none)" in roles.no_labels


def test_the_columns_of_a_list_are_told_with_their_types(tmp_path):
    write(tmp_path, {"a.jpg": photo(), "b.jpg": photo(1)})
    rows = ["path,label,role,title,price", "a.jpg,x,train,A hat,3", "b.jpg,,test,A coat,4"]
    (tmp_path / "list.csv").write_text("\n".join([*rows, "c.jpg,x,train,None,5"]))
    survey = look(tmp_path / "list.csv")
    assert survey.columns == {"title": "text", "price": "int64"}
    assert survey.roles == {"train": 1, "query": 1}
    assert survey.left_out == {"in the list, but not there": 1, "without a label": 1}


def test_an_archive_is_looked_at_like_a_folder(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for number in range(3 * SAMPLE):
            archive.writestr(f"train/{number % 2}/{number}.jpg", photo(number, (20, 20)))
        archive.writestr("train/notes.txt", "x")
    survey = look(tmp_path / "a.zip")
    assert survey.images == 3 * SAMPLE and len(survey.labels) == 2
    assert len(survey.sample.sizes) == SAMPLE
    assert survey.roles == {"train": 3 * SAMPLE} and survey.skipped == {".txt": 1}


def test_the_digits_are_small_and_grey():
    survey = look("digits")
    assert survey.images == 1797 and len(survey.labels) == 10
    assert set(survey.sample.sizes) == {(8, 8)} and survey.sample.grey == 1


def test_ink_on_paper_is_a_drawing_and_a_grey_photo_is_none():
    ink, grey = (Image.open(io.BytesIO(c)).convert("RGB") for c in (drawing(), photo(3, grey=True)))
    assert is_drawing(ink) and is_grey(ink)
    assert is_grey(grey) and not is_drawing(grey)


def test_a_source_that_is_missing_or_holds_nothing_readable_is_an_error(tmp_path):
    with pytest.raises(SourceError, match="cannot be read"):
        look(tmp_path / "none")
    with pytest.raises(SourceError, match="holds no image"):
        look(tmp_path)
    with pytest.raises(CatalogError, match=r"none of 1 images can be read, e.g. cat/1.jpg"):
        look(write(tmp_path, {"cat/1.jpg": b"no picture"}))


def test_a_bucket_is_looked_at_like_a_folder(buckets):
    names = ["set/cat/1.jpg", "set/cat/2.jpg", "set/dog/1.jpg", "set/dog/notes.txt"]
    buckets.fill("photos", {name: photo(i) for i, name in enumerate(names)})
    settings = Download(source="s3://photos/set", endpoint=buckets.uri)
    survey = survey_source(open_source(settings))
    assert survey.labels == {"cat": 2, "dog": 1} and survey.skipped == {".txt": 1}
    assert len(survey.sample.sizes) == 3
