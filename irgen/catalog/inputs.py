"""Images that someone hands over – paths, bytes, pictures or pixels – as an encoder reads them."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from os import PathLike, fspath
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from PIL import Image

from irgen.catalog.images import Decoding, cores, decode, plain, square
from irgen.errors import ImageError

Input = str | PathLike | bytes | Image.Image
KINDS = "a path, the bytes of an image file, or a PIL image"


def decode_images(
    images: Iterable[Input] | Any, decoding: Decoding, threads: int = 0
) -> np.ndarray:
    """Pixels (B, C, size, size) uint8 of images, in the order given; (0, C, size, size) of none.

    ``images``: paths, bytes of image files and PIL images, mixed as you like, which ``threads`` (0:
    one a core) decode, resize and crop as the catalogue's are; or one array or tensor of pixels
    (B, C, size, size) uint8, taken as it is. Pixels of another size, type or number of channels are
    refused: how they were made cannot be told from them. Raises ImageError naming the image by its
    path, or by its number, from 0, if it has none.
    """
    if getattr(images, "ndim", 1) > 1:
        return _pixels(images, decoding)
    if isinstance(images, Input) or not isinstance(images, Iterable):
        raise ImageError(f"images: expected a list of them, found one {_kind(images)}: write [it]")
    given, one_at_a_time = list(images), Lock()

    def squared(number: int) -> np.ndarray:
        with _naming(number, given[number]):
            return square(_picture(given[number], decoding, one_at_a_time), decoding)

    found = np.empty((len(given), *decoding.shape), np.uint8)
    with ThreadPoolExecutor(threads or cores(), thread_name_prefix="decode") as pool:
        for number, pixels in enumerate(pool.map(squared, range(len(given)))):
            found[number] = pixels
    return found


def _picture(image: Input, decoding: Decoding, one_at_a_time: Lock) -> Image.Image:
    if isinstance(image, Image.Image):
        with one_at_a_time:  # opened lazily: two threads might read the same file
            return plain(image, decoding.channels)
    if isinstance(image, bytes):
        return decode(image, decoding.channels)
    if not isinstance(image, Input):
        raise ImageError(f"expected {KINDS}, found {_kind(image)}")
    try:
        content = Path(image).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise ImageError(getattr(error, "strerror", None) or str(error)) from None
    return decode(content, decoding.channels)


def _pixels(images: Any, decoding: Decoding) -> np.ndarray:
    """An array or a tensor on any device as an array, if it is what ``decoding`` makes."""
    found = np.asarray(images.detach().cpu() if hasattr(images, "detach") else images)
    if found.dtype != np.uint8 or found.ndim != 4 or found.shape[1:] != decoding.shape:
        channels, size, _ = decoding.shape
        raise ImageError(
            f"pixels: expected uint8 from 0 to 255 of shape (images, {channels}, {size}, {size}), "
            f"found {found.dtype} of shape {found.shape}; hand over files or PIL images to have "
            "them resized"
        )
    return found


@contextmanager
def _naming(number: int, image: Input) -> Iterator[None]:
    try:
        yield
    except ImageError as error:
        name = fspath(image) if isinstance(image, str | PathLike) else f"image {number}"
        raise ImageError(f"{name}: {error}") from error


def _kind(value: Any) -> str:
    if isinstance(value, Image.Image):
        return "PIL image"
    return f"path ({value})" if isinstance(value, str | PathLike) else type(value).__name__
