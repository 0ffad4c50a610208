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
    brighten = _brighten(image) if is_deep and image.mode in ("RGB", "RGBA") else None
    if image.has_transparency_data:
        flatten_alpha = _drop_alpha if _has_empty_alpha(image) else _lay_on_white
        return lambda tile: flatten_alpha(brighten(tile) if brighten else tile)
    if image.mode == "1":
        return lambda tile: tile.convert("L")
    return brighten or (lambda tile: tile)


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
    """Scale colours, and alpha, of 10, 12 or 14 bits that are stored in 16."""
    highs = [int(high) for _, high in np.reshape(image.getextrema(), (-1, 2))]
    table = _levels(max(highs[:3])) * 3
    table += _levels(highs[3]) if len(highs) > 3 else []
    return lambda tile: tile.point(table)


def _levels(highest: int) -> list[int]:
    """Return 8 bits for each value of the upper 8 of 16 bits, of which none is above `highest`."""
    most = next(2 ** (bits - 8) - 1 for bits in DEPTHS[1:] if highest < 2 ** (bits - 8))
    return [round(min(255.0, value * 255 / most)) for value in range(256)]


def _choose_scale(image: Image.Image) -> Callable[[Image.Image], Image.Image]:
    void = _read_nodata(image)
    low, high = _find_range(image, void)
    if image.mode == "F":
        low, high = (0.0, 1.0) if low >= 0 and DARK <= high <= 1 else (low, high)
    elif low >= 0 and high < 2 ** DEPTHS[-1]:
        low, high = 0.0, 2.0 ** next(bits for bits in DEPTHS if high < 2**bits) - 1
    factor = 255 / (high - low) if high > low else 0.0

    def scale(tile: Image.Image) -> Image.Image:
        values = np.clip(_read_values(tile, void), low, high)
        scaled = (np.where(np.isnan(values), low, values) - low) * factor
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
    """Return the values (h, w) float64, NaN where there is none."""
    values = np.asarray(tile).astype(np.float64)
    if tile.mode == "F":
        values[np.abs(values) >= VOID] = np.nan
    if void is not None:
        values[values == void] = np.nan
    return values


def _read_nodata(image: Image.Image) -> float | None:
    try:
        return float(np.float32(getattr(image, "tag_v2", {}).get(NODATA)))
    except (TypeError, ValueError):
        return None
