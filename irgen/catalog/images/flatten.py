"""Flatten images of any mode to 8 bits: transparency on white, deep grey and floats scaled."""

from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image, ImageCms

TILE = 1024  # pixels a side: an image is flattened in tiles, which bounds the memory
DEPTHS = (8, 10, 12, 14, 16)  # bits that cameras and scanners store in 16
DARK = 1 / 16  # floats from 0 to less than this fill the whole range
VOID = 1e30  # what lies beyond stands for no value
NODATA = 42113  # a tag of TIFF, from GDAL: the number that stands for no value


def flatten(image: Image.Image, mode: str, shrink: int, is_deep: bool) -> Image.Image:
    """Return a loaded image as L or RGB (`mode`), each side divided by `shrink`.

    Transparent pixels become white. Grey of 16 or 32 bits maps 0 … 2ⁿ − 1 to 0 … 255, n the least
    of DEPTHS that holds all values; floats map 0 … 1. Values out of that range, and floats below
    DARK, are stretched from the least to the greatest; NaN, infinities and what TIFF calls no data
    do not count. `is_deep`: the file has colours of 16 bits, of which the image holds the upper 8.
    """
    convert = _choose_conversion(image, is_deep)
    if shrink == 1 and max(image.size) <= TILE:
        return convert(image).convert(mode)
    width, height = (-(-side // shrink) for side in image.size)
    flat = Image.new(mode, (width, height))
    for box in _tiles(image.size, max(1, TILE // shrink) * shrink):
        tile = convert(image.crop(box)).convert(mode)
        flat.paste(tile.reduce(shrink), (box[0] // shrink, box[1] // shrink))
    return flat


def _tiles(size: tuple[int, int], side: int) -> Iterator[tuple[int, int, int, int]]:
    for top in range(0, size[1], side):
        for left in range(0, size[0], side):
            yield left, top, min(left + side, size[0]), min(top + side, size[1])


def _choose_conversion(image: Image.Image, is_deep: bool) -> Callable[[Image.Image], Image.Image]:
    """Return a function from a tile of the image to one that converts to L and RGB."""
    if image.mode == "F" or image.mode.startswith("I"):
        return _choose_scale(image)
    if image.mode == "LAB":
        return _from_lab
    if image.has_transparency_data:
        return _drop_alpha if _has_empty_alpha(image) else _lay_on_white
    if image.mode == "1":
        return lambda tile: tile.convert("L")
    if is_deep and image.mode == "RGB":
        return _brighten(image)
    return lambda tile: tile


def _lay_on_white(tile: Image.Image) -> Image.Image:
    layer = tile.convert("RGBA")
    white = Image.new("RGBA", layer.size, "white")
    return Image.alpha_composite(white, layer).convert("RGB")


def _drop_alpha(tile: Image.Image) -> Image.Image:
    return tile.convert("RGB")


def _has_empty_alpha(image: Image.Image) -> bool:
    """Tell whether nothing would be seen of a bitmap, whose fourth channel is often unused."""
    is_bitmap = image.format in ("BMP", "DIB", "ICO") and image.mode == "RGBA"
    return is_bitmap and image.getchannel("A").getextrema() == (0, 0)


def _from_lab(tile: Image.Image) -> Image.Image:
    profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    return ImageCms.profileToProfile(tile, *profiles, outputMode="RGB") or tile


def _brighten(image: Image.Image) -> Callable[[Image.Image], Image.Image]:
    """Scale colours of 10, 12 or 14 bits that are stored in 16."""
    highest = int(np.max(image.getextrema()))
    bits = next(bits for bits in DEPTHS[1:] if highest < 2 ** (bits - 8))
    table = [round(min(255.0, value * 255 / (2 ** (bits - 8) - 1))) for value in range(256)]
    return lambda tile: tile.point(table * 3)


def _choose_scale(image: Image.Image) -> Callable[[Image.Image], Image.Image]:
    void = _read_nodata(image)
    low, high = _find_range(image, void)
    if image.mode == "F":
        low, high = (0.0, 1.0) if low >= 0 and DARK <= high <= 1 else (low, high)
    elif low >= 0 and high < 2 ** DEPTHS[-1]:
        low, high = 0.0, 2.0 ** next(bits for bits in DEPTHS if high < 2**bits) - 1
    factor = 255 / max(high - low, float(np.finfo(np.float64).tiny))

    def scale(tile: Image.Image) -> Image.Image:
        values = _read_values(tile, void)
        scaled = np.clip((np.nan_to_num(values, nan=low) - low) * factor, 0, 255)
        return Image.fromarray(np.rint(scaled).astype(np.uint8))

    return scale


def _find_range(image: Image.Image, void: float | None) -> tuple[float, float]:
    low, high = np.inf, -np.inf
    for box in _tiles(image.size, TILE):
        values = _read_values(image.crop(box), void)
        values = values[np.isfinite(values)]
        if len(values):
            low, high = min(low, float(values.min())), max(high, float(values.max()))
    return (low, high) if low <= high else (0.0, 0.0)


def _read_values(tile: Image.Image, void: float | None) -> np.ndarray:
    """Return the values (h, w) float64, NaN or infinite where there is none."""
    values = np.asarray(tile).astype(np.float64)
    if tile.mode == "F":
        values[np.abs(values) >= VOID] *= np.inf
    if void is not None:
        values[values == void] = np.nan
    return values


def _read_nodata(image: Image.Image) -> float | None:
    try:
        return float(np.float32(getattr(image, "tag_v2", {}).get(NODATA)))
    except (TypeError, ValueError):
        return None
