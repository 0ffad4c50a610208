"""Pictures that open in ordinary viewers open here, with their content; others say why not."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from irgen.catalog.images import codecs
from irgen.catalog.images.decode import decode, decode_file
from irgen.errors import ImageError

codecs.list_formats()  # which tests write, too
TURNS = {
    3: Image.Transpose.ROTATE_180,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
}
GREY = (np.arange(64 * 48).reshape(48, 64) * 17 % 256).astype(np.uint16)


def picture(width: int = 64, height: int = 48, seed: int = 0) -> Image.Image:
    """Return a smooth picture, which formats with losses keep."""
    corners = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return Image.fromarray(corners).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def difference(content: bytes, image: Image.Image | np.ndarray) -> float:
    """Return the mean difference of the decoded pixels from `image`."""
    expected = np.asarray(image).astype(float)
    shown = np.asarray(decode(content, 3 if expected.ndim == 3 else 1)).astype(float)
    assert shown.shape == expected.shape
    return float(np.abs(shown - expected).mean())


def oriented(turn: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = turn
    return exif.tobytes()


@pytest.mark.parametrize(
    "kind",
    ["JPEG", "MPO", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "AVIF", "HEIF", "JXL", "JPEG2000"],
)
def test_every_kind_shows_its_picture_whatever_the_file_is_called(kind: str) -> None:
    assert difference(encoded(picture(), kind), picture()) < 8


def test_the_largest_picture_of_an_icon_counts() -> None:
    icon = encoded(picture(64, 64), "ICO", sizes=[(16, 16), (64, 64)])
    assert difference(icon, picture(64, 64)) < 1


@pytest.mark.parametrize(
    "kind", ["tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "zstd", "lzma"]
)
def test_every_compression_of_tiff_is_read(kind: str) -> None:
    assert difference(encoded(picture(), "TIFF", compression=kind), picture()) < 8


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_colours_of_printers_and_of_light_are_shown(kind: str) -> None:
    assert difference(encoded(picture().convert("CMYK"), kind), picture()) < 8
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    image = ImageCms.profileToProfile(picture(), srgb, lab, outputMode="LAB")
    assert image is not None
    assert difference(encoded(image, "TIFF"), picture()) < 8


def test_large_comments_and_profiles_of_png_cost_no_picture() -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("workflow", "n" * 3_000_000, zip=True)
    text.add_itxt("XML:com.adobe.xmp", "<x>" + "a" * 2_000_000, zip=True)
    content = encoded(picture(), "PNG", pnginfo=text, exif=oriented(6))
    assert difference(content, picture().transpose(TURNS[6])) == 0
    profile = np.random.default_rng(0).bytes(600_000) + bytes(900_000)
    assert difference(encoded(picture(), "PNG", icc_profile=profile), picture()) == 0


@pytest.mark.parametrize("behind", [False, True])
def test_a_wrong_checksum_of_a_comment_costs_no_picture(behind: bool) -> None:
    text = PngImagePlugin.PngInfo()
    text.add(b"tEXt", b"Comment\0hello", after_idat=behind)
    content = encoded(picture(), "PNG", pnginfo=text)
    assert difference(content.replace(b"hello", b"jello"), picture()) == 0


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
@pytest.mark.parametrize("lost", [1, 2])
def test_a_photo_without_its_end_mark_is_whole(options: dict, lost: int) -> None:
    content = encoded(picture(), "JPEG", **options)
    assert difference(content[:-lost], np.asarray(decode(content, 3))) == 0


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "HEIF", "AVIF"])
def test_bytes_behind_a_picture_do_not_count(kind: str) -> None:
    content = encoded(picture(), kind)
    assert difference(content + bytes(99) + b"<html>", np.asarray(decode(content, 3))) == 0


@pytest.mark.parametrize("kind", ["JPEG", "BMP", "PPM", "TIFF"])
def test_a_picture_that_lacks_a_last_bit_is_read_and_one_that_lacks_a_tenth_is_not(
    kind: str,
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (640, 96, 3), dtype=np.uint8)
    content = encoded(Image.fromarray(noise), kind)
    assert difference(content[: -len(content) // 200], np.asarray(decode(content, 3))) < 2
    with pytest.raises(ImageError, match="truncated"):
        decode(content[: -len(content) // 10], 3)


@pytest.mark.parametrize("turn", [1, 3, 5, 6])
def test_the_missing_part_of_a_photo_is_told_however_it_lies(turn: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (640, 96, 3), dtype=np.uint8)
    content = encoded(Image.fromarray(noise), "JPEG", exif=oriented(turn))
    with pytest.raises(ImageError, match=r"truncated: (49|50|51)% of its pixels are missing"):
        decode(content[: len(content) // 2], 3)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_grey_of_any_depth_in_16_bits_keeps_its_contrast(kind: str, bits: int) -> None:
    deep = Image.fromarray((GREY * 257) >> (16 - bits))
    assert difference(encoded(deep, kind), GREY) < 1


def deep_png(pixels: np.ndarray) -> bytes:
    """Return pixels (h, w, 3 or 4) of 16 bits as PNG, which Pillow does not write."""
    height, width, channels = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, {3: 2, 4: 6}[channels], 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


@pytest.mark.parametrize("opaque", [None, 65535, 4095])
@pytest.mark.parametrize("bits", [12, 16])
def test_colours_of_12_bits_in_16_keep_their_contrast(opaque: int | None, bits: int) -> None:
    colours = (np.asarray(picture()).astype(np.uint16) * 257) >> (16 - bits)
    if opaque:
        colours = np.dstack([colours, np.full_like(colours[:, :, :1], opaque)])
    if opaque == 4095 and bits == 16:
        pytest.skip("an alpha of 12 bits beside colours of 16")
    assert difference(deep_png(colours), picture()) < 9  # Pillow reads the upper 8 bits


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf, 3.4e38, -3.4e38])
def test_numbers_that_are_none_take_no_contrast_from_the_others(odd: float) -> None:
    values = (GREY / 255).astype(np.float32)
    values[:, ::7] = odd
    shown = np.asarray(decode(encoded(Image.fromarray(values), "TIFF"), 1))
    ordinary = np.arange(64) % 7 > 0
    assert np.abs(shown[:, ordinary].astype(int) - GREY[:, ordinary]).max() <= 1


@pytest.mark.parametrize("value", [np.nan, 0.0, 5.0])
def test_floats_without_contrast_are_flat(value: float) -> None:
    flat = Image.fromarray(np.full((4, 4), value, np.float32))
    assert len(np.unique(np.asarray(decode(encoded(flat, "TIFF"), 1)))) == 1


def test_dark_floats_are_stretched_and_what_tiff_calls_no_data_does_not_count() -> None:
    values = (GREY / 255 / 100).astype(np.float32)
    assert difference(encoded(Image.fromarray(values), "TIFF"), GREY) < 1
    values[:, 0] = -9999
    content = encoded(Image.fromarray(values), "TIFF", tiffinfo={42113: "-9999"})
    assert np.abs(np.asarray(decode(content, 1))[:, 1:].astype(int) - GREY[:, 1:]).max() <= 1


def test_an_unused_alpha_channel_of_a_bitmap_hides_nothing() -> None:
    image = picture().convert("RGBA")
    image.putalpha(0)
    assert difference(encoded(image, "BMP"), picture()) == 0
    assert decode(encoded(image, "PNG"), 3).getextrema() == ((255, 255),) * 3


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "AVIF", "HEIF", "TIFF"])
def test_the_first_of_several_pictures_counts(kind: str) -> None:
    options = {"save_all": True, "append_images": [picture(seed=1), picture(seed=2)]}
    assert difference(encoded(picture(), kind, **options), picture()) < 8


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
def test_a_picture_is_turned_once(kind: str, turn: int) -> None:
    content = encoded(picture(), kind, exif=oriented(turn))
    assert difference(content, picture().transpose(TURNS[turn])) < 8
    upright = decode_file(content, 3)
    assert (upright.width, upright.height) == ((64, 48) if turn == 3 else (48, 64))


def test_jpeg_xl_turns_its_pictures_itself(tmp_path) -> None:
    assert difference(encoded(picture(), "JXL", exif=oriented(6)), picture()) < 8
    path = tmp_path / "photo.jpg"
    path.write_bytes(encoded(picture(), "JPEG", exif=oriented(6)))
    packed = encoded(Image.open(path), "JXL", lossless_jpeg=True)  # in which it is as it was
    assert difference(packed, picture().transpose(TURNS[6])) < 8


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "HEIF"])
def test_damaged_exif_and_profiles_turn_nothing(kind: str) -> None:
    damaged = b"Exif\0\0II*\0\x08\0\0\0\xff\xff"
    content = encoded(picture(), kind, exif=damaged, icc_profile=b"no profile" * 50)
    assert difference(content, picture()) < 8


@pytest.mark.parametrize("size", [(1, 1), (1, 20_000), (20_000, 1), (3, 9000)])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "JPEG2000", "JXL"])
def test_thin_pictures_are_read(kind: str, size: tuple[int, int]) -> None:
    red = decode(encoded(Image.new("RGB", size, "red"), kind), 3, 8)
    assert np.asarray(red)[..., 0].min() > 230 and np.asarray(red)[..., 1].max() < 30


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\xef\xbb\xbf <!DOCTYPE html>", "HTML"),
        (b"%PDF-1.7", "PDF"),
        (b"<svg xmlns=", "SVG"),
        (bytes(4096), "all its bytes are zero"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        (b"\0\0\0\x20ftypisom" + bytes(64), "video"),
        (b"II*\0" + bytes(64), "TIFF"),
        (b"hello", "known format"),
    ],
)
def test_what_is_no_picture_says_what_it_is(content: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        decode(content, 3)


def test_a_kind_whose_package_is_missing_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    content = encoded(picture(), "JXL")
    monkeypatch.setattr(codecs, "list_formats", lambda: codecs.FORMATS)
    with pytest.raises(ImageError, match=r"pip install irgen\[jxl\]"):
        decode(content, 3)
