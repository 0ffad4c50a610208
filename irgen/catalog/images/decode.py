"""Decode image files of every kind: upright, flat, and no larger than is needed."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Literal

from PIL import ExifTags, Image

from irgen.catalog.images import jxl, memory, repair
from irgen.catalog.images.codecs import describe_kind, open_image
from irgen.catalog.images.flatten import flatten
from irgen.catalog.shards import Images
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
SIDEWAYS = (5, 6, 7, 8)
SPARE = 2  # an image is shrunk to no less than this times the side that is needed
LARGE = 16_000_000  # pixels beyond which images other than JPEG are shrunk


@dataclass(frozen=True)
class Decoded:
    """An upright image of mode L or RGB, perhaps shrunk; its size in the file, upright; and how it
    was turned (1: not at all), as EXIF has it."""

    image: Image.Image
    width: int
    height: int
    turn: int

    @property
    def stored(self) -> Image.Image:
        """Return the image as it lies in the file."""
        back = {6: 8, 8: 6}.get(self.turn, self.turn)
        return self.image.transpose(UPRIGHT[back]) if back in UPRIGHT else self.image


def decode(content: bytes, channels: Literal[1, 3], side: int | None = None) -> Image.Image:
    """Return the image in `content` as `decode_file` does, without its size in the file."""
    return decode_file(content, channels, side).image


def decode_file(
    content: bytes, channels: Literal[1, 3], side: int | None = None, *, alone: bool = False
) -> Decoded:
    """Return the image in `content`: mode L (1 channel) or RGB (3), upright by its EXIF data.

    Transparent pixels become white, 16 bits are scaled to 8, and the first frame or page counts.
    `side`: the short side that is needed; a large image is shrunk to no less than SPARE times that.
    Without `side` it keeps its size. `alone`: while nothing else is decoded.

    Files that lack their end are read if no more than `repair.MISSING` of the pixels are lost, and
    PNG files with damaged or very long comments without these. Waits for memory where other threads
    hold it (`memory.PIXELS`). Raises ImageError with the reason: empty, not an image, truncated,
    damaged, or too large; and MemoryError if there is no memory.
    """
    if not content:
        raise ImageError("the file is empty")
    try:
        return _decode(content, channels, side, alone)
    except ImageError as error:
        reason = str(error)  # the error itself would keep its pixels
    if len(content) <= memory.REPAIRS // 2:
        with memory.for_repairs.reserve(2 * len(content)), suppress(ImageError):
            versions = [
                _decode(version, channels, side, alone) for version in repair.list_versions(content)
            ]
            missing = repair.measure_missing(content, [version.stored for version in versions])
            if missing <= repair.MISSING:
                return versions[0]
            reason = f"truncated: {missing:.0%} of its pixels are missing"
    raise ImageError(reason)


def _decode(content: bytes, channels: Literal[1, 3], side: int | None, alone: bool) -> Decoded:
    least = memory.PIXELS if alone else 0
    with report_damage(describe_kind(content)), ExitStack() as stack:
        if not jxl.is_jxl(content):
            return _read(content, channels, side, least, stack)
        needed = memory.count_jxl_bytes(content)  # its decoder starts as soon as it is opened
        stack.enter_context(memory.hold_pixels(max(least, needed)))
        return _read(content, channels, side, None, stack)


def _read(
    content: bytes, channels: Literal[1, 3], side: int | None, least: int | None, stack: ExitStack
) -> Decoded:
    """Decode a file, and hold the memory, at least `least`, on `stack`; None: it is held. The
    image as Pillow has it is gone when this ends."""
    with open_image(content) as image:
        size = image.size
        memory.check_size(*size)
        if side and image.format in ("JPEG", "MPO"):
            image.draft(None, _choose_draft(size, side))
        shrink = _choose_shrink(image.size, side)
        if least is not None:
            needed = memory.count_bytes(image, size, shrink, content)
            stack.enter_context(memory.hold_pixels(max(least, needed)))
        shown, turn = _load(image, channels, shrink)
    width, height = size[::-1] if turn in SIDEWAYS else size
    return Decoded(shown, width, height, turn)


def flatten_image(
    image: Image.Image, channels: Literal[1, 3], side: int | None = None
) -> Image.Image:
    """Return an image that Pillow has opened as `decode` does; `image` keeps its size. Raises
    ImageError for pixels that are damaged, none, or too many."""
    with report_damage("not an image"):
        memory.check_size(*image.size)
        return _load(image, channels, _choose_shrink(image.size, side))[0]


def _choose_draft(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Return the size to which JPEG is shrunk as it is decoded: by 8, 4 or 2 if that divides both
    sides, or if the image is large. Otherwise a side would be rounded, and the picture bent."""
    width, height = size
    for scale in (8, 4, 2):
        is_exact = width % scale == 0 == height % scale
        if min(size) // scale >= SPARE * side and (is_exact or width * height > LARGE):
            return width // scale, height // scale
    return size


def _choose_shrink(size: tuple[int, int], side: int | None) -> int:
    """Return the whole number by which the sides of a large image are divided."""
    if side is None or size[0] * size[1] <= LARGE:
        return 1
    return max(1, min(size) // (SPARE * side))


def _load(image: Image.Image, channels: Literal[1, 3], shrink: int) -> tuple[Image.Image, int]:
    """Return the pixels, upright, and how they were turned, as EXIF has it."""
    is_deep = any(";16" in str(tile) for tile in getattr(image, "tile", ()))
    image.load()
    turn = _read_orientation(image)
    flat = flatten(image, "RGB" if channels == 3 else "L", shrink, is_deep)
    return flat.transpose(UPRIGHT[turn]) if turn in UPRIGHT else flat, turn


def _read_orientation(image: Image.Image) -> int:
    if image.format == "JXL" and not getattr(image, "jpeg", False):
        return 1  # its decoder turns it; inside it, a JPEG is as it was
    # ImageOps.exif_transpose raises where it cannot rewrite damaged EXIF, orientation or not.
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except MemoryError:
        raise
    except Exception:  # damaged EXIF says nothing about the pixels: show the image as it lies
        return 1


def decode_stored(
    images: Images,
    sha256: str,
    channels: Literal[1, 3],
    side: int | None = None,
    *,
    alone: bool = False,
) -> Decoded:
    """Return a downloaded image as `decode_file` does."""
    with memory.for_files.reserve(images.size(sha256)):
        return decode_file(images.read(sha256), channels, side, alone=alone)


@contextmanager
def report_damage(kind: str) -> Iterator[None]:
    """Turn whatever Pillow raises for a file of this kind into an ImageError, and nothing else."""
    try:
        yield
    except (ImageError, MemoryError):
        raise
    except Image.UnidentifiedImageError:
        raise ImageError(kind) from None
    except Image.DecompressionBombError:
        raise ImageError(f"more than {memory.MAX_PIXELS / 1e6:.0f} megapixels") from None
    except Exception as error:  # its readers raise whatever a damaged file makes them trip over
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the disk
        reason = " ".join(str(error).split()).partition(". Please build")[0]  # as libjxl says
        reason = reason[:200] or type(error).__name__
        raise ImageError(f"damaged: {reason}") from error
