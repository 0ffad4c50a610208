"""Bound the memory that decoding takes, whatever the images and the number of threads."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import CDLL
from functools import cache
from mmap import mmap
from threading import Condition, Lock

from PIL import Image

from irgen.catalog.images import jxl
from irgen.errors import ImageError

MAX_PIXELS = 178_956_970  # Pillow's own bound for a decompression bomb
# Bytes that are held at once: of files, of copies of damaged files, and of pixels.
FILES, REPAIRS, PIXELS = 120_000_000, 40_000_000, 720_000_000
KEPT = 32_000_000  # bytes of one image that the allocator may keep
WORKING = 12_000_000  # bytes of the tiles in which an image is flattened, at most
DEPTHS = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "I;16N": 2}  # others: 4
DECODERS = {  # bytes a pixel that a decoder takes besides the image, as measured
    "AVIF": 14,
    "GIF": 2,
    "HEIF": 10,
    "ICO": 8,
    "JPEG2000": 22,
    "JXL": 8,
    "PPM": 4,
    "WEBP": 13,
}
SCAN, START = b"\xff\xda", b"\xff\xd8"  # markers of JPEG
BITS, COMPRESSION, ROWS, TILE_WIDTH, TILE_HEIGHT = 258, 259, 278, 322, 323  # tags of TIFF


class Budget:
    """Bytes that threads share. The first to wait is the first served, so that small requests
    cannot keep a large one waiting."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._free = size
        self._turn = Lock()
        self._changed = Condition()

    @contextmanager
    def reserve(self, size: int) -> Iterator[None]:
        """Hold `size` bytes, or the whole budget if that is less; wait until they are free."""
        size = min(size, self.size)
        with self._turn, self._changed:
            self._changed.wait_for(lambda: self._free >= size)
            self._free -= size
        try:
            yield
        finally:
            with self._changed:
                self._free += size
                self._changed.notify_all()


for_files, for_repairs, for_pixels = Budget(FILES), Budget(REPAIRS), Budget(PIXELS)


def require_memory() -> None:
    """Raise MemoryError if there is less memory left than one image may take."""
    try:
        mmap(-1, PIXELS).close()
    except OSError as error:
        raise MemoryError(f"less than {PIXELS / 1e6:.0f} MB of memory are left") from error


@contextmanager
def hold_pixels(size: int) -> Iterator[None]:
    """Hold `size` bytes of `for_pixels`; in the end give them back to the system, too, which the
    allocator would keep for each thread."""
    with for_pixels.reserve(size):
        yield
        trim = _find_trim()
        if trim and size > KEPT:
            trim(0)


@cache
def _find_trim() -> Callable[[int], int] | None:
    return getattr(CDLL(None), "malloc_trim", None)  # of Linux


def check_size(width: int, height: int) -> None:
    """Raise ImageError for an image without pixels, or with more than MAX_PIXELS."""
    if width < 1 or height < 1:
        raise ImageError(f"{width}×{height} pixels: no picture in it")
    if width * height > MAX_PIXELS:
        raise ImageError(f"{width}×{height} pixels: more than {MAX_PIXELS / 1e6:.0f} megapixels")


def count_bytes(image: Image.Image, size: tuple[int, int], shrink: int, content: bytes) -> int:
    """Return the bytes that decoding takes. `image` is opened, and not loaded; its decoder returns
    its size, which was `size` in the file, and `shrink` divides that. Raises ImageError if it takes
    more than PIXELS."""
    shown = image.width * image.height
    needed = shown * DEPTHS.get(image.mode, 4) + 4 * shown // shrink**2
    needed += _count_decoder_bytes(image, size[0] * size[1], content)
    return _check_bytes(needed, content, size)


def count_jxl_bytes(content: bytes) -> int:
    """Return the bytes that decoding a JPEG XL file takes. Raises ImageError for a size that is
    refused."""
    size = jxl.read_size(content)
    check_size(*size)
    return _check_bytes(size[0] * size[1] * (4 + DECODERS["JXL"]), content, size)


def _check_bytes(needed: int, content: bytes, size: tuple[int, int]) -> int:
    needed += max(0, len(content) - FILES)
    if needed > PIXELS:
        raise ImageError(
            f"{size[0]}×{size[1]} pixels: decoding takes {needed / 1e9:.1f} GB of memory, and "
            f"{PIXELS / 1e9} GB are allowed; save a smaller copy"
        )
    return min(needed + min(WORKING, 32 * size[0] * size[1]), PIXELS)


def _count_decoder_bytes(image: Image.Image, pixels: int, content: bytes) -> int:
    """Return the bytes that the decoder takes besides the image."""
    if image.format in ("JPEG", "MPO"):  # of several scans, all coefficients are kept
        scans = content.count(SCAN)
        is_baseline = scans <= 1 or scans <= content.count(START)
        return 0 if is_baseline else 2 * len(image.getbands()) * pixels
    if image.format == "TIFF":  # a strip, or a tile, may be the whole image
        tags = getattr(image, "tag_v2", {})
        if tags.get(COMPRESSION, 1) == 1:
            return 0
        strip = image.width * min(image.height, tags.get(ROWS, image.height))
        tile = tags.get(TILE_WIDTH, 0) * tags.get(TILE_HEIGHT, 0)
        return max(strip, tile) * (sum(tags.get(BITS, (8,))) // 8 + 1)
    return DECODERS.get(image.format or "", 0) * pixels
