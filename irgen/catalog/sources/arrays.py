"""Image sets that come as arrays: scikit-learn's digits, and CIFAR's binary versions.

CIFAR-10 and CIFAR-100 (Krizhevsky, 2009) are records of one label byte, or two of CIFAR-100, the
coarse and the fine one, and 3 × 32 × 32 bytes of red, green and blue. Their Python versions are
pickles, which may run code when they are read: they are refused.
"""

import hashlib
import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from irgen.catalog.sources.listing import Entry, Listing
from irgen.catalog.sources.local import read_file
from irgen.errors import IrgenWarning, SourceError

SHAPE = (3, 32, 32)
PUBLISHED = {"train": 50_000, "test": 10_000}


@dataclass(frozen=True, kw_only=True)
class Version:
    """A set: the files of each part, the file with label names, and the label bytes a record."""

    title: str
    files: dict[str, tuple[str, ...]]
    names: str
    labels: int


VERSIONS = (
    Version(
        title="CIFAR-10",
        files={
            "train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
            "test": ("test_batch.bin",),
        },
        names="batches.meta.txt",
        labels=1,
    ),
    Version(
        title="CIFAR-100",
        files={"train": ("train.bin",), "test": ("test.bin",)},
        names="fine_label_names.txt",
        labels=2,
    ),
)
PICKLES = (("batches.meta", "data_batch_1"), ("meta", "train", "test"))


def list_digits() -> Listing:
    """List the 1,797 handwritten digits of scikit-learn: 8×8 grey PNGs, e.g. 3/0012.png."""
    from sklearn.datasets import load_digits  # a second of imports that other sources need not pay

    digits = load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)  # (1797, 8, 8), from 0…16
    keys = [f"{label}/{row:04d}.png" for row, label in enumerate(digits.target)]
    return Listing(entries=map(_digit_entry, keys, pixels), count=len(keys))


def _digit_entry(key: str, pixels: np.ndarray) -> Entry:
    etag = hashlib.sha256(pixels.tobytes()).hexdigest()  # of the pixels, not of the encoder
    return Entry(key, etag, partial(_encode_png, pixels))


def _encode_png(pixels: np.ndarray) -> bytes:
    """Return a PNG of (H, W) or (H, W, 3) uint8: not compressed, so that every zlib writes the same
    bytes."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=0)
    return file.getvalue()


def find_cifar(folder: Path) -> Version | None:
    """Return which set's binary version lies in `folder`; None: neither's.

    Raises SourceError for a Python version, naming the binary one.
    """
    for version in VERSIONS:
        if all((folder / name).is_file() for name in (version.names, version.files["train"][0])):
            return version
    if any(all((folder / name).is_file() for name in names) for names in PICKLES):
        raise SourceError(
            f"{folder} holds CIFAR's Python version, pickles, which may run code when they are "
            "read: unpack cifar-10-binary.tar.gz or cifar-100-binary.tar.gz and make the folder of "
            "its .bin files the source"
        )
    return None


def list_cifar(folder: Path, version: Version) -> Listing:
    """List its images as train/airplane/00000.png …, test/…, numbered through a part's files.

    Warns if there are more or fewer than published. Raises SourceError if a file is missing,
    truncated, or has a label without a name.
    """
    names = read_file(folder / version.names).decode("utf-8", "replace").split()
    sizes = {
        name: _count(folder, name, version) for part in version.files.values() for name in part
    }
    for part, files in version.files.items():
        count = sum(sizes[name] for name in files)
        if count != PUBLISHED[part]:
            text = f"{version.title}: {count:,} images of {part}, published: {PUBLISHED[part]:,}"
            warnings.warn(text, IrgenWarning, stacklevel=2)
    return Listing(entries=_entries(folder, version, names), count=sum(sizes.values()))


def _count(folder: Path, name: str, version: Version) -> int:
    record = version.labels + int(np.prod(SHAPE))
    size = len(read_file(folder / name))
    if not size or size % record:
        raise SourceError(
            f"{folder / name} should be records of {record:,} bytes, found {size:,} bytes: "
            "it is truncated or another file; unpack it again"
        )
    return size // record


def _entries(folder: Path, version: Version, names: list[str]) -> Iterator[Entry]:
    for part, files in version.files.items():
        number = 0
        for name in files:
            records = np.frombuffer(read_file(folder / name), np.uint8)
            records = records.reshape(-1, version.labels + int(np.prod(SHAPE)))
            for record in records:
                label = int(record[version.labels - 1])
                if label >= len(names):
                    raise SourceError(
                        f"{folder / name}: label {label}, but {version.names} has {len(names)} "
                        "names; unpack both again"
                    )
                pixels = record[version.labels :].reshape(SHAPE).transpose(1, 2, 0)
                etag = hashlib.sha256(record.tobytes()).hexdigest()  # of the pixels and the label
                key = f"{part}/{names[label]}/{number:05d}.png"
                yield Entry(key, etag, partial(_encode_png, np.ascontiguousarray(pixels)))
                number += 1
