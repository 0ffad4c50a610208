"""Bound the memory that decoding takes, whatever the images and the number of threads."""

from collections.abc import Iterator
from contextlib import contextmanager
from mmap import mmap
from threading import Condition, Lock

from PIL import Image

from irgen.catalog.images import jxl
from irgen.errors import ImageError

MAX_PIXELS = 178_956_970  # Pillow's own bound for a decompression bomb
FILES, PIXELS = 200_000_000, 750_000_000  # bytes of files, and of pixels, that are held at once
WORKING = 12_000_000  # bytes of the tiles in which an image is flattened, at most
DEPTHS = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "I;16N": 2}  # others: 4
DECODERS = {  # bytes a pixel that a decoder takes besides the image, as measured
    "AVIF": 14,
    "GIF": 8,
    "HEIF": 10,
    "ICO": 8,
    "JPEG2000": 22,
    "JXL": 8,
    "PPM": 4,
    "WEBP": 13,
}
SCAN, START = b"\xff\xda", b"\xff\xd8"  # markers of JPEG
BITS_PER_SAMPLE = 258  # a tag of TIFF


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


for_files, for_pixels = Budget(FILES), Budget(PIXELS)


def require_memory() -> None:
    """Raise MemoryError if there is less memory left than one image may take."""
    try:
        mmap(-1, PIXELS).close()
    except OSError as error:
        raise MemoryError(f"less than {PIXELS / 1e6:.0f} MB of memory are left") from error


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
    needed += size[0] * size[1] * _count_decoder_bytes(image, content)
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


def _count_decoder_bytes(image: Image.Image, content: bytes) -> int:
    """Return the bytes a pixel that the decoder takes besides the image."""
    if image.format in ("JPEG", "MPO"):  # of several scans, all coefficients are kept
        is_baseline = content.count(SCAN) <= content.count(START)
        return 0 if is_baseline else 2 * len(image.getbands())
    if image.format == "TIFF":  # one strip may be the whole image
        return sum(getattr(image, "tag_v2", {}).get(BITS_PER_SAMPLE, (8,))) // 8 + 1
    return DECODERS.get(image.format or "", 0)
