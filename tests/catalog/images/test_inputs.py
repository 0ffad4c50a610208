"""Images handed over in any form become the pixels the catalogue would have made of them."""

import io
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

from irgen.catalog.images.decode import decode
from irgen.catalog.images.pixels import Decoding, decode_images, square
from irgen.errors import ImageError

GREY = Decoding(size=6, channels=1, crop=0.875)
COLOUR = Decoding(size=5, channels=3)


def picture(seed: int, width: int = 9, height: int = 7) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def content(seed: int) -> bytes:
    file = io.BytesIO()
    picture(seed).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "a.png").write_bytes(content(0))
    return tmp_path / "a.png"


@pytest.mark.parametrize("decoding", [GREY, COLOUR], ids=["grey", "colour"])
def test_paths_bytes_and_pictures_give_what_the_catalogue_gives(
    path: Path, decoding: Decoding
) -> None:
    expected = square(decode(content(0), decoding.channels), decoding)
    batch = decode_images([path, str(path), content(0), picture(0), Image.open(path)], decoding)
    assert batch.shape == (5, *decoding.shape) and batch.dtype == np.uint8
    assert (batch == expected).all()


def test_images_come_back_in_the_order_given_whoever_decodes_first() -> None:
    seeds = [3, 1, 2, 0] * 10
    batch = decode_images([content(seed) for seed in seeds], GREY, threads=3)
    for seed, pixels in zip(seeds, batch, strict=True):
        assert (pixels == square(decode(content(seed), 1), GREY)).all()


def test_any_iterable_of_images_is_a_list_of_them(path: Path) -> None:
    table = pl.DataFrame({"path": [str(path)] * 2})
    assert len(decode_images(table["path"], GREY)) == 2
    assert len(decode_images(np.array([str(path)] * 3), GREY)) == 3
    assert len(decode_images((each for each in [path]), GREY)) == 1


def test_of_no_images_there_are_no_pixels() -> None:
    assert decode_images([], COLOUR).shape == (0, 3, 5, 5)
    assert decode_images(np.empty((0, 3, 5, 5), np.uint8), COLOUR).shape == (0, 3, 5, 5)


def test_one_lazily_opened_picture_may_be_given_many_times(path: Path) -> None:
    image = Image.open(path)
    batch = decode_images([image] * 20, GREY, threads=4)
    assert (batch == batch[0]).all()


def test_a_handed_over_picture_stands_upright_on_white() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    Image.new("RGB", (8, 4), "red").save(file, "JPEG", exif=exif)
    turned = Image.open(file)
    assert (decode_images([turned], GREY) == decode_images([file.getvalue()], GREY)).all()
    clear = Image.new("RGBA", (6, 6), (0, 0, 0, 0))
    assert (decode_images([clear], GREY) == 255).all()


@pytest.mark.parametrize("kind", [np.array, torch.tensor])
def test_decoded_pixels_are_taken_as_they_are(kind) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 3, 5, 5), dtype=np.uint8)
    assert (decode_images(kind(pixels), COLOUR) == pixels).all()


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((2, 3, 5, 5), np.float32),
        torch.zeros(2, 3, 5, 5),
        np.zeros((2, 1, 5, 5), np.uint8),
        np.zeros((2, 3, 6, 5), np.uint8),
        np.zeros((3, 5, 5), np.uint8),
    ],
    ids=["floats", "a tensor of floats", "channels", "size", "one image"],
)
def test_other_pixels_are_refused_with_what_was_expected(pixels) -> None:
    with pytest.raises(ImageError, match=r"expected uint8 .* \(images, 3, 5, 5\), found .*resized"):
        decode_images(pixels, COLOUR)


def test_an_image_that_cannot_be_read_is_named(path: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(content(1)[:60])
    cases = {
        r"broken.png: damaged": broken,
        r"no.png: No such file": str(tmp_path / "no.png"),
        rf"{tmp_path}: Is a directory": tmp_path,
        "a\0b: ": "a\0b",
        "image 1: not an image": b"<html>",
        "image 1: the file is empty": b"",
        "image 1: damaged": Image.open(broken),
        "image 1: expected a path, .* found ndarray": np.zeros((3, 5, 5), np.uint8),
        "image 1: expected a path, .* found NoneType": None,
    }
    for message, image in cases.items():
        with pytest.raises(ImageError, match=message):
            decode_images([path, image, path], COLOUR)


@pytest.mark.parametrize("image", ["a.png", Path("a.png"), b"PNG", picture(0), None, 3])
def test_one_image_alone_is_refused_not_read_letter_by_letter(image) -> None:
    with pytest.raises(ImageError, match="expected a list"):
        decode_images(image, GREY)
