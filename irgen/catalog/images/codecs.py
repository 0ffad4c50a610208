"""Open image files of every kind that is read, by their content and never by their name."""

import io
from contextlib import suppress
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

from PIL import Image, features

FORMATS = (  # as Pillow names them, JPEG with MPO; never EPS, which runs programs
    *("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM"),
    *("AVIF", "HEIF", "JPEG2000", "ICO", "PSD"),
)
ENDINGS = (  # of files that FORMATS and JPEG XL read
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".mpo", ".png", ".apng", ".gif", ".bmp", ".dib"),
    *(".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ".avif", ".avifs"),
    *(".heic", ".heif", ".heics", ".heifs", ".hif", ".jxl", ".jp2", ".j2k", ".j2c", ".jpc"),
    *(".jpf", ".jpx", ".ico", ".psd"),
)
PACKAGES = ("pillow", "pillow-heif", "pillow-jxl-plugin")
LIBRARIES = ("avif", "libjpeg_turbo", "webp", "jpg_2000", "libtiff", "zlib")


def open_image(content: bytes) -> Image.Image:
    """Return the image in `content`, whose pixels are not read yet. Raises what Pillow raises."""
    return Image.open(io.BytesIO(content), formats=list_formats())


@cache
def list_formats() -> tuple[str, ...]:
    """Return the names of the formats that can be read here, after loading their plug-ins. JPEG XL
    needs a package that is not everywhere (`pip install irgen[jxl]`)."""
    import_module("pillow_heif").register_heif_opener(thumbnails=False, decode_threads=1)
    with suppress(ImportError):
        import_module("pillow_jxl")
        return (*FORMATS, "JXL")
    return FORMATS


@cache
def describe_decoders() -> str:
    """Return the versions of all that decodes: a verdict on a file holds for them alone."""
    versions = {name: features.version(name) for name in LIBRARIES}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return " ".join(f"{name}={number}" for name, number in versions.items())
