"""Make small pictures of images, as browsers show them."""

import io

from PIL import Image
from PIL.Image import Resampling

SIDE = 224  # pixels of a thumbnail's longer side: enough to enlarge it


def encode_thumbnail(image: Image.Image, side: int = SIDE) -> tuple[str, bytes]:
    """Return the media type and the bytes of a small picture: a JPEG shrunk to ``side``, or, of an
    image less than half as large, a PNG enlarged by a whole factor, so that browsers do not blur
    its pixels."""
    shown = image.convert("L" if image.mode in ("1", "L") else "RGB")
    factor = side // max(shown.size)
    if factor > 1:
        size = shown.width * factor, shown.height * factor
        shown = shown.resize(size, Resampling.NEAREST)
    else:
        shown.thumbnail((side, side))
    buffer, form = io.BytesIO(), "PNG" if factor > 1 else "JPEG"
    shown.save(buffer, form, quality=82)
    return f"image/{form.lower()}", buffer.getvalue()
