"""Pixels as files, for sets that come as arrays."""

import io

import numpy as np
from PIL import Image


def png(pixels: np.ndarray) -> bytes:
    """A PNG of (H, W) or (H, W, 3) uint8: stored, not compressed, so that every version of zlib
    writes the same bytes."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=0)
    return file.getvalue()
