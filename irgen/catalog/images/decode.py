"""Decode image files: of any kind and mode, turned upright, transparency on white."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np
from PIL import ExifTags, Image

from irgen.catalog.images.codecs import open_image
from irgen.errors import ImageError

UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
MAX_PIXELS = 178_956_970  # Pillow's own bound for a decompression bomb


def decode(content: bytes, channels: Literal[1, 3]) -> Image.Image:
    """Return the image in `content`: mode L (1 channel) or RGB (3), upright by its EXIF data.

    Transparent pixels become white, 16 bits are scaled to 8, and the first frame or page counts.
    Raises ImageError with the reason: empty, not an image, truncated, damaged, or of more than 178
    megapixels.
    """
    if not content:
        raise ImageError("the file is empty")
    with _report_damage(), open_image(content) as image:
        return flatten_image(image, channels)


def flatten_image(image: Image.Image, channels: Literal[1, 3]) -> Image.Image:
    """Return an image that Pillow has opened as `decode` does; `image` stays as it is. Raises
    ImageError for pixels that are damaged, none, or too many."""
    with _report_damage():
        _refuse_bomb(image)
        image.load()
        return _flatten(_turn_upright(image)).convert("RGB" if channels == 3 else "L")


@contextmanager
def _report_damage() -> Iterator[None]:
    """Turn whatever Pillow raises into an ImageError."""
    try:
        yield
    except ImageError:
        raise
    except Image.UnidentifiedImageError:
        raise ImageError("not an image of a known format") from None
    except Image.DecompressionBombError:
        raise ImageError(f"more than {MAX_PIXELS / 1e6:.0f} megapixels") from None
    except (
        Exception
    ) as error:  # Pillow's readers raise whatever a damaged file makes them trip over
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ImageError(f"damaged: {reason}") from error


def _refuse_bomb(image: Image.Image) -> None:
    width, height = image.size
    if width < 1 or height < 1:
        raise ImageError(f"{width}×{height} pixels: no picture in it")
    if width * height > MAX_PIXELS:
        raise ImageError(f"{width}×{height} pixels: more than {MAX_PIXELS / 1e6:.0f} megapixels")


def _turn_upright(image: Image.Image) -> Image.Image:
    # ImageOps.exif_transpose raises where it cannot rewrite damaged EXIF, orientation or not.
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # damaged EXIF says nothing about the pixels: show the image as it lies
        return image
    return image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image


def _flatten(image: Image.Image) -> Image.Image:
    """Return any mode as L or RGB, or as one that converts to them."""
    if image.mode == "F" or image.mode.startswith("I"):
        return _eight_bits(image)
    if not image.has_transparency_data:
        return image.convert("L") if image.mode == "1" else image
    layer = image.convert("RGBA")
    white = Image.new("RGBA", layer.size, "white")
    return Image.alpha_composite(white, layer).convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Return grey of 16 or 32 bits as L: 0…65535 (or 0…1 in floats) maps to 0…255; an image that
    leaves that range is stretched from its least to its greatest value."""
    pixels = np.nan_to_num(np.asarray(image).astype(np.float64))
    low, high = 0.0, 1.0 if image.mode == "F" else 65535.0
    if pixels.min() < low or pixels.max() > high:
        low, high = pixels.min(), pixels.max()
    scaled = (pixels - low) * (255.0 / max(high - low, np.finfo(np.float64).tiny))
    return Image.fromarray(np.rint(scaled).astype(np.uint8))
