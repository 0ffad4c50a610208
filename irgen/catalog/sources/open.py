"""Where images come from: ``download.source`` of ``params.yaml`` as a source that can be listed."""

import hashlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from irgen.catalog.sources import archives, cifar, folders, lists, urls
from irgen.catalog.sources.listing import Entry, Listing, Source
from irgen.catalog.sources.png import png
from irgen.errors import SourceError
from irgen.params import Download

CACHE = Path(".cache", "download")
ALLOWED = (
    "'digits', a folder, a .tar, .tar.gz, .tgz or .zip archive, or a .csv or .parquet list, here "
    "or at a URL"
)


def open_source(settings: Download, cache: Path = CACHE) -> Source:
    """The source that ``download.source`` names: the embedded digits, a folder (of images, or of
    CIFAR's binary files), an archive, a list, or one of these at a URL. Archives from elsewhere are
    fetched into ``cache``.

    Raises SourceError if it is not there or is none of these; what is in it shows on ``load``.
    """
    name = settings.source
    if "://" in name:
        return urls.open_url(settings, cache)
    if settings.sha256:
        raise SourceError(
            f"download: sha256: {name!r} is no URL; only an archive or list that comes from "
            "elsewhere is checked: set sha256 to ''"
        )
    if name == "digits":
        return Source(name=name, stamp=None, load=list_digits)
    path = Path(name).expanduser()
    try:
        about = path.stat()
    except OSError as error:
        raise SourceError(
            f"download: source: {name!r} cannot be read ({error.strerror}); give {ALLOWED}"
        ) from None
    if path.is_dir() and (version := cifar.version_of(path)):
        return Source(name=name, stamp=None, load=partial(cifar.list_cifar, path, version))
    if path.is_dir():
        return Source(name=name, stamp=None, load=partial(folders.list_folder, path))
    if path.name.lower().endswith(lists.ENDINGS):
        return Source(name=name, stamp=None, load=partial(lists.list_table, path))
    if path.name.lower().endswith(archives.ENDINGS):
        stamp = f"{path.resolve()}-{about.st_size}-{about.st_mtime_ns}"
        limit = int(settings.max_gigabytes * 1e9)
        return Source(name=name, stamp=stamp, load=partial(archives.list_archive, path, limit))
    raise SourceError(f"download: source: {name!r} is of no known kind; give {ALLOWED}")


def list_digits() -> Listing:
    """The 1,797 handwritten digits that come with scikit-learn: 8×8 grey PNGs, e.g. 3/0012.png."""
    from sklearn.datasets import load_digits  # a second of imports that other sources need not pay

    digits = load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)  # (1797, 8, 8), from 0…16
    return Listing(entries=_digit_entries(pixels, digits.target), count=len(pixels))


def _digit_entries(pixels: np.ndarray, labels: np.ndarray) -> Iterator[Entry]:
    for row, (image, label) in enumerate(zip(pixels, labels, strict=True)):
        etag = hashlib.sha256(image.tobytes()).hexdigest()  # of the pixels, not of the encoder
        yield Entry(f"{label}/{row:04d}.png", etag, partial(png, image))
