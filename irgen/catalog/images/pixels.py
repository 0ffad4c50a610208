"""Turn images into the pixels that an encoder reads: squares of one size."""

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from os import PathLike, fspath
from pathlib import Path
from threading import Lock
from typing import Any, Literal

import numpy as np
from PIL import Image
from tqdm import tqdm

from irgen.catalog.images.decode import decode, decode_stored, flatten_image
from irgen.catalog.images.memory import for_files
from irgen.catalog.shards import Images
from irgen.errors import ImageError

VERSION = 2  # raise when an image decodes to other pixels
READ_BATCH = 256  # images that are decoded while others are copied

Input = str | PathLike | bytes | Image.Image
KINDS = "a path, the bytes of an image file, or a PIL image"


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """Input format of an encoder: squares of `size` pixels, grey (1 channel) or colour (3).

    `crop`: the share of the resized short side that the centre crop keeps; `interpolation`:
    nearest, bilinear, bicubic, lanczos, box or hamming.
    """

    size: int
    channels: Literal[1, 3]
    crop: float = 1.0
    interpolation: str = "bilinear"

    @property
    def short(self) -> int:
        """Pixels of the short side before the crop."""
        return max(round(self.size / self.crop), self.size)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, size, size)."""
        return self.channels, self.size, self.size


def square(image: Image.Image, decoding: Decoding) -> np.ndarray:
    """Return the centre of `image` as (C, size, size) uint8, with the channels it has: resize the
    short side to round(size / crop), then keep the middle size × size.

    Only the kept part is computed, so a very long image costs no more than a square one.
    """
    size, (width, height) = decoding.size, image.size
    short, least = decoding.short, min(width, height)
    across, down = short * width // least, short * height // least
    left, top = round((across - size) / 2), round((down - size) / 2)
    box = (
        left * width / across,
        top * height / down,
        (left + size) * width / across,
        (top + size) * height / down,
    )
    resample = Image.Resampling[decoding.interpolation.upper()]
    pixels = np.asarray(image.resize((size, size), resample, box=box))
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def decode_square(images: Images, sha256: str, decoding: Decoding) -> np.ndarray:
    """Return a downloaded image as (C, size, size) uint8. Raises ImageError, naming the image, if
    it does not decode."""
    try:
        decoded = decode_stored(images, sha256, decoding.channels, decoding.short)
        return square(decoded.image, decoding)
    except ImageError as error:
        raise ImageError(f"image {sha256} does not decode: {error}") from error


def stream_pixels(
    images: Images, batches: Iterable[Sequence[str]], decoding: Decoding, *, threads: int
) -> Iterator[np.ndarray]:
    """Yield (B, C, size, size) uint8 for each of `batches` of content hashes.

    `threads` decode (0: one a core), at most two batches ahead of the reader. Raises ImageError
    naming the image that does not decode.
    """
    pool = ThreadPoolExecutor(threads or count_cores(), thread_name_prefix="decode")

    def submit(sha256s: Sequence[str]) -> list[Future[np.ndarray]]:
        return [pool.submit(decode_square, images, sha256, decoding) for sha256 in sha256s]

    try:
        ahead = map(submit, batches)
        waiting = deque(islice(ahead, 2))
        while waiting:
            futures = waiting.popleft()
            waiting.extend(islice(ahead, 1))
            yield np.stack([future.result() for future in futures])
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def read_pixels(
    images: Images, sha256s: Sequence[str], decoding: Decoding, *, threads: int
) -> np.ndarray:
    """Return (N, C, size, size) uint8, row-aligned with `sha256s`.

    Decode as `stream_pixels` does, with a progress bar where there is a terminal.
    """
    pixels = np.empty((len(sha256s), *decoding.shape), np.uint8)
    starts = range(0, len(sha256s), READ_BATCH)
    batches = (sha256s[start : start + READ_BATCH] for start in starts)
    stream = stream_pixels(images, batches, decoding, threads=threads)
    with tqdm(total=len(sha256s), desc="decode", unit="image", disable=None) as bar:
        for start, batch in zip(starts, stream, strict=True):
            pixels[start : start + len(batch)] = batch
            bar.update(len(batch))
    return pixels


def decode_images(
    images: Iterable[Input] | Any, decoding: Decoding, threads: int = 0
) -> np.ndarray:
    """Return pixels (B, C, size, size) uint8 of images, in the order given.

    `images`: paths, bytes of image files and PIL images, mixed as you like, which `threads` (0: one
    a core) decode, resize and crop as the catalogue's are; or one array or tensor of pixels
    (B, C, size, size) uint8, taken as it is; other arrays are refused. Raises ImageError naming the
    image by its path or, without one, its number from 0.
    """
    if getattr(images, "ndim", 1) > 1:
        return _check_pixels(images, decoding)
    if isinstance(images, Input) or not isinstance(images, Iterable):
        raise ImageError(
            f"images: expected a list of them, found one {_describe(images)}: write [it]"
        )
    inputs, lock = list(images), Lock()

    def make_square(number: int) -> np.ndarray:
        with _name_in_errors(number, inputs[number]):
            return square(_open_input(inputs[number], decoding, lock), decoding)

    pixels = np.empty((len(inputs), *decoding.shape), np.uint8)
    with ThreadPoolExecutor(threads or count_cores(), thread_name_prefix="decode") as pool:
        for number, image in enumerate(pool.map(make_square, range(len(inputs)))):
            pixels[number] = image
    return pixels


def _open_input(image: Input, decoding: Decoding, lock: Lock) -> Image.Image:
    if isinstance(image, Image.Image):
        with lock:  # opened lazily: two threads might read the same file
            return flatten_image(image, decoding.channels, decoding.short)
    if isinstance(image, bytes):
        return decode(image, decoding.channels, decoding.short)
    if not isinstance(image, Input):
        raise ImageError(f"expected {KINDS}, found {_describe(image)}")
    try:
        return decode_path(Path(image), decoding)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise ImageError(getattr(error, "strerror", None) or str(error)) from None


def decode_path(path: Path, decoding: Decoding) -> Image.Image:
    """Return the image in a file as `decode` does. Raises OSError if it cannot be read."""
    with for_files.reserve(path.stat().st_size):
        return decode(read_image(path), decoding.channels, decoding.short)


def read_image(path: Path) -> bytes:
    """Return the bytes of a file. Raises OSError if it cannot be read, ImageError for a device,
    which may never end."""
    if path.is_char_device() or path.is_block_device():
        raise ImageError("it is a device, not a file")
    return path.read_bytes()


def _check_pixels(images: Any, decoding: Decoding) -> np.ndarray:
    """Return an array, or a tensor on any device, as an array, if it is what `decoding` makes."""
    pixels = np.asarray(images.detach().cpu() if hasattr(images, "detach") else images)
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1:] != decoding.shape:
        channels, size, _ = decoding.shape
        raise ImageError(
            f"pixels: expected uint8 from 0 to 255 of shape (images, {channels}, {size}, {size}), "
            f"found {pixels.dtype} of shape {pixels.shape}; hand over files or PIL images to have "
            "them resized"
        )
    return pixels


@contextmanager
def _name_in_errors(number: int, image: Input) -> Iterator[None]:
    try:
        yield
    except ImageError as error:
        name = fspath(image) if isinstance(image, str | PathLike) else f"image {number}"
        raise ImageError(f"{name}: {error}") from error


def _describe(value: Any) -> str:
    if isinstance(value, Image.Image):
        return "PIL image"
    return f"path ({value})" if isinstance(value, str | PathLike) else type(value).__name__


def count_cores() -> int:
    """Return the number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
