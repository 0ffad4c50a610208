"""A decoded image on its way into an index, and the columns that describe it."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from irgen.catalog.images.decode import decode_file
from irgen.catalog.images.pixels import Decoding, square
from irgen.index.metadata import join_columns

FILE_COLUMNS = {
    "path": pl.String(),
    "sha256": pl.String(),
    "width": pl.Int32(),
    "height": pl.Int32(),
}


@dataclass(frozen=True)
class DecodedImage:
    """One decoded file: ``pixels`` (C, size, size) uint8 as the encoder reads them, the
    ``sha256`` of its content, and its upright ``width`` and ``height`` in pixels."""

    pixels: np.ndarray
    sha256: str
    width: int
    height: int


def decode_image(content: bytes, decoding: Decoding) -> DecodedImage:
    """Return the image in a file. Raise ImageError if it cannot be decoded."""
    decoded = decode_file(content, decoding.channels, decoding.short)
    sha256 = hashlib.sha256(content).hexdigest()
    return DecodedImage(square(decoded.image, decoding), sha256, decoded.width, decoded.height)


def add_file_columns(
    table: pl.DataFrame, names: Sequence[str], pictures: Sequence[DecodedImage], schema: pl.Schema
) -> pl.DataFrame | None:
    """Return the metadata of images with those of FILE_COLUMNS that an index of ``schema`` keeps
    and ``table``, which may be empty, lacks. ``names``: paths of the files. None without any
    column."""
    values: dict[str, list] = {
        "path": list(names),
        "sha256": [picture.sha256 for picture in pictures],
        "width": [picture.width for picture in pictures],
        "height": [picture.height for picture in pictures],
    }
    columns = table.get_columns()
    columns += [
        pl.Series(name, values[name], kind)
        for name, kind in FILE_COLUMNS.items()
        if schema.get(name) == kind and name not in table.columns
    ]
    return join_columns(columns) if columns else None
