"""Every kind of image file becomes upright 8-bit pixels, or one reason why not."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from irgen.catalog.images import memory as memory_module
from irgen.catalog.images.decode import decode
from irgen.catalog.images.pixels import Decoding, read_image, read_pixels, square, stream_pixels
from irgen.errors import ImageError


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixels(image: Image.Image) -> list:
    return np.asarray(image).tolist()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_honoured_in_every_format(kind: str, orientation: int) -> None:
    stored = Image.new("L", (32, 16), 0)
    stored.paste(255, (0, 0, 8, 8))  # white in the top left corner as stored
    exif = Image.Exif()
    exif[0x0112] = orientation
    shown = np.asarray(decode(encoded(stored.convert("RGB"), kind, exif=exif), 1))
    turned = [(0, 0), (0, -1), (-1, -1), (-1, 0)]
    corners = dict(enumerate(turned * 2, start=1))
    assert shown.shape == ((16, 32) if orientation < 5 else (32, 16))
    white = {at for at in ((0, 0), (0, -1), (-1, 0), (-1, -1)) if shown[at] > 128}
    assert white == {corners[orientation]}


def test_sixteen_bit_grey_is_scaled_and_not_clipped() -> None:
    grey = np.array([[0, 257, 32896, 65535]], np.uint16)
    for kind in ("PNG", "TIFF"):
        assert pixels(decode(encoded(Image.fromarray(grey), kind), 1)) == [[0, 1, 128, 255]]
    pgm = b"P5\n4 1\n65535\n" + grey.astype(">u2").tobytes()
    assert pixels(decode(pgm, 1)) == [[0, 1, 128, 255]]


def test_floats_from_zero_to_one_and_wider_ones_fill_eight_bits() -> None:
    unit = Image.fromarray(np.array([[0, 0.5, 1]], np.float32))
    wide = Image.fromarray(np.array([[-1000, 0, 1000]], np.float32))
    assert pixels(decode(encoded(unit, "TIFF"), 1)) == [[0, 128, 255]]
    assert pixels(decode(encoded(wide, "TIFF"), 1)) == [[0, 128, 255]]


def test_a_bilevel_image_is_black_and_white() -> None:
    assert pixels(decode(encoded(Image.new("1", (2, 1), 1)), 1)) == [[255, 255]]


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_alpha_is_laid_onto_white(mode: str) -> None:
    clear = Image.new(mode, (1, 1), (0, 0) if mode == "LA" else (0, 0, 0, 0))
    assert pixels(decode(encoded(clear), 3)) == [[[255, 255, 255]]]
    half = Image.new(mode, (1, 1), (0, 128) if mode == "LA" else (0, 0, 0, 128))
    assert pixels(decode(encoded(half), 1)) == [[127]]


def test_a_palette_with_transparency_is_laid_onto_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.putpixel((1, 0), 1)
    transparent = encoded(image, transparency=0)
    assert pixels(decode(transparent, 3)) == [[[255, 255, 255], [255, 0, 0]]]
    assert pixels(decode(encoded(image), 3)) == [[[0, 0, 0], [255, 0, 0]]]


def test_a_transparent_colour_of_rgb_is_laid_onto_white() -> None:
    blue = encoded(Image.new("RGB", (1, 1), (0, 0, 255)), transparency=(0, 0, 255))
    assert pixels(decode(blue, 3)) == [[[255, 255, 255]]]


def test_cmyk_becomes_rgb_and_grey() -> None:
    white = encoded(Image.new("CMYK", (8, 8), (0, 0, 0, 0)), "JPEG")
    assert np.asarray(decode(white, 3)).min() > 250
    assert np.asarray(decode(white, 1)).min() > 250


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame_counts(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime")]
    options = {"lossless": True} if kind == "WEBP" else {}
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert pixels(decode(content, 3))[0][0] == [255, 0, 0]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM"])
def test_a_truncated_file_is_told_by_reason(kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    content = encoded(Image.fromarray(noise), kind)
    with pytest.raises(ImageError) as caught:
        decode(content[: len(content) // 2], 3)
    assert str(caught.value)


def test_a_device_that_never_ends_is_not_read() -> None:
    with pytest.raises(ImageError, match="it is a device, not a file"):
        read_image(Path("/dev/zero"))


def test_what_is_no_image_has_a_reason() -> None:
    with pytest.raises(ImageError, match="empty"):
        decode(b"", 3)
    with pytest.raises(ImageError, match="not an image"):
        decode(b"<html>404</html>", 3)
    with pytest.raises(ImageError, match="not an image"):  # its reader would run Ghostscript
        decode(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 3)


def test_a_decompression_bomb_is_refused_before_it_is_decoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory_module, "MAX_PIXELS", 99)
    with pytest.raises(ImageError, match="megapixels"):
        decode(encoded(Image.new("L", (10, 10))), 1)
    header = b"P5\n20000 20000\n255\n"
    with pytest.raises(ImageError, match="megapixels"):
        decode(header, 1)


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_damaged_bytes_never_raise_anything_but_an_image_error(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"]))
    noise = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    content = bytearray(encoded(Image.fromarray(noise), kind))
    for _ in range(3):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert decode(bytes(content), 3).mode == "RGB"
    except ImageError as error:
        assert str(error)


def test_a_square_of_the_same_size_is_the_image_itself() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    eight = Decoding(size=8, channels=3)
    assert (square(Image.fromarray(noise), eight) == noise.transpose(2, 0, 1)).all()


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 70),
    st.integers(1, 70),
    st.integers(1, 40),
    st.sampled_from([1.0, 0.875, 0.9]),
)
def test_a_square_is_the_resized_image_cropped(
    width: int, height: int, size: int, crop: float
) -> None:
    noise = np.random.default_rng(width * 71 + height).integers(0, 256, (height, width))
    image = Image.fromarray(noise.astype(np.uint8))
    short = round(size / crop)
    across, down = (short * side // min(width, height) for side in (width, height))
    left, top = round((across - size) / 2), round((down - size) / 2)
    whole = image.resize((across, down), Image.Resampling.BILINEAR)
    expected = np.asarray(whole.crop((left, top, left + size, top + size)), np.int16)
    pixels = square(image, Decoding(size=size, channels=1, crop=crop))[0]
    assert np.abs(pixels - expected).max() <= 3  # two roundings


def test_a_very_long_image_costs_no_more_than_a_square_one() -> None:
    large = Decoding(size=224, channels=3)
    assert square(Image.new("RGB", (100_000, 1)), large).shape == (3, 224, 224)


class Memory:
    """Images kept in a mapping, as the decoder reads them."""

    def __init__(self, contents: dict[str, bytes]) -> None:
        self.contents = contents
        self.reads = 0

    def size(self, sha256: str) -> int:
        return len(self.contents[sha256])

    def read(self, sha256: str) -> bytes:
        self.reads += 1
        return self.contents[sha256]


@pytest.fixture
def memory() -> Memory:
    return Memory({str(i): encoded(Image.new("L", (4, 4), i)) for i in range(50)})


FOUR = Decoding(size=4, channels=1)


@pytest.mark.parametrize("batch_size", [1, 7, 25, 50, 64])
def test_a_stream_yields_every_image_once_in_order(memory: Memory, batch_size: int) -> None:
    wanted = [str(i) for i in (*range(50), 3)]
    parts = [wanted[start : start + batch_size] for start in range(0, len(wanted), batch_size)]
    batches = list(stream_pixels(memory, parts, FOUR, threads=3))
    assert [len(b) for b in batches[:-1]] == [batch_size] * (len(batches) - 1)
    assert np.concatenate(batches)[:, 0, 0, 0].tolist() == [*range(50), 3]
    assert (np.concatenate(batches) == read_pixels(memory, wanted, FOUR, threads=3)).all()


def test_a_stream_reads_no_further_ahead_than_two_batches(memory: Memory) -> None:
    parts = [[str(i + j) for j in range(5)] for i in range(0, 50, 5)]
    stream = stream_pixels(memory, parts, FOUR, threads=3)
    next(stream)
    assert memory.reads <= 5 + 2 * 5
    stream.close()


def test_of_no_images_there_are_no_pixels(memory: Memory) -> None:
    assert read_pixels(memory, [], FOUR, threads=3).shape == (0, 1, 4, 4)
    assert list(stream_pixels(memory, [], FOUR, threads=3)) == []


def test_an_image_that_does_not_decode_is_named(memory: Memory, tmp_path: Path) -> None:
    memory.contents["7"] = b"no"
    with pytest.raises(ImageError, match="image 7"):
        read_pixels(memory, ["6", "7"], FOUR, threads=3)


def test_an_image_whose_exif_cannot_be_rewritten_is_turned_all_the_same() -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x011A] = 6, (72, 1)
    raw = exif.tobytes().replace(b"\x01\x1a\x00\x05", b"\x01\x00\x00\x05")  # of another tag
    content = encoded(Image.new("RGB", (32, 16)), "JPEG", exif=raw)
    with pytest.raises(Exception, match="not an integer"):
        ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    assert decode(content, 3).size == (16, 32)
