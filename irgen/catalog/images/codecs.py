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

KINDS = {  # by how a file begins, after spaces
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG": "PNG",
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"RIFF": "WebP",
    b"8BPS": "Photoshop",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL": "JPEG XL",
    b"\0\0\0\x0cjP": "JPEG 2000",
}
UNKNOWN = "not an image of a known format"
OTHERS = {
    b"%PDF": "a PDF document",
    b"<svg": "an SVG drawing, which has no pixels",
    b"<?xml": "an XML document",
    b"<!doctype": "a page of HTML",
    b"<html": "a page of HTML",
    b"{": "a JSON document",
    b"PK": "a ZIP archive",
    b"version https://git-lfs": "a pointer of Git LFS: fetch the files with `git lfs pull`",
}


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


def describe_kind(content: bytes) -> str:
    """Return why a file that no format recognises is not read."""
    start = content[:64].lstrip(b"\xef\xbb\xbf \t\r\n")
    for prefix, name in OTHERS.items():
        if start.lower().startswith(prefix.lower()):
            return f"not an image, but {name}"
    if not content.strip(b"\0"):
        return "not an image: all its bytes are zero"
    kinds = [name for prefix, name in KINDS.items() if content.startswith(prefix)]
    if content[4:8] == b"ftyp":
        kinds = ["AVIF, HEIC or video"]
    if kinds == ["JPEG XL"] and "JXL" not in list_formats():
        return "JPEG XL needs a package: pip install irgen[jxl]"
    return f"damaged, or a kind of {kinds[0]} that is not read" if kinds else UNKNOWN
