"""Mend files whose pixels are there and whose bytes are not as their format wants them."""

import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageChops

PNG = b"\x89PNG\r\n\x1a\n"
COMMENTS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")  # which no pixel depends on
JPEG, END = b"\xff\xd8\xff", b"\xff\xd9"
BLOCK = 16  # rows that JPEG codes together
MISSING = 0.02  # share of the pixels that may be missing


def list_versions(content: bytes) -> list[bytes]:
    """Return what a damaged file may have been: a PNG file without comments, or a file that has
    lost its end, with two different ends. Images of both differ where the pixels are lost."""
    if content.startswith(PNG):
        return [b"".join([PNG, *_keep_chunks(content)])]
    length = len(content) // 50 + 1024
    if content.startswith(JPEG):
        noise = np.random.default_rng(0).integers(1, 255, length, np.uint8).tobytes()
        content = content.rstrip(b"\xff")  # half of a marker
        return [content + END, content + noise + END]
    return [content + bytes(length), content + b"\xff" * length]


def _keep_chunks(content: bytes) -> Iterator[bytes]:
    """Yield the chunks of a PNG file except comments and those that are damaged and not needed."""
    start = len(PNG)
    while start < len(content):
        kind = content[start + 4 : start + 8]
        end = start + 12 + int.from_bytes(content[start : start + 4], "big")
        is_needed = kind[:1].isupper()
        is_intact = (
            zlib.crc32(content[start + 4 : end - 4]).to_bytes(4, "big") == (content[end - 4 : end])
        )
        if is_needed or (is_intact and kind not in COMMENTS):
            yield content[start:end]
        start = end


def measure_missing(content: bytes, images: list[Image.Image]) -> float:
    """Return the share of pixels that `content` lacks. `images`: its versions, as stored; they
    differ where pixels are lost. In JPEG, all rows below are lost, too: the end that a version has
    may not reach them."""
    difference = ImageChops.difference(images[0], images[-1]).convert("L")
    if (box := difference.getbbox()) is None:
        return 0.0
    width, height = difference.size
    differing = 1 - difference.histogram()[0] / (width * height)
    if not content.startswith(JPEG):
        return differing
    return max(differing, 1 - (box[1] + BLOCK) / height)
