"""Checks every image once in its life: decodes and measures it, and keeps that by its hash."""

import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import polars as pl
from tqdm import tqdm

from irgen.catalog.fingerprints import fingerprint
from irgen.catalog.images import cores, decode
from irgen.catalog.shards import Images
from irgen.errors import ImageError
from irgen.files import atomic

NAME = "checked-2.parquet"  # a new number whenever ``decode`` accepts other images than before
SCHEMA = pl.Schema(
    {
        "sha256": pl.String,
        "width": pl.Int32,
        "height": pl.Int32,
        "reason": pl.String,
        "across": pl.UInt64,  # the two halves of its fingerprint
        "down": pl.UInt64,
    }
)
CHUNK = 20_000  # images between two saves


class Checked(NamedTuple):
    """One image: its size in pixels, upright, and its fingerprint, or the reason why it is none
    (and −1, −1, no fingerprint)."""

    sha256: str
    width: int
    height: int
    reason: str | None
    across: int | None
    down: int | None


def check_images(images: Images, sha256s: Sequence[str], cache: Path, threads: int) -> pl.DataFrame:
    """One row for each distinct hash: sha256, width, height (pixels, −1 if rejected), reason (null
    if the image is fine), and the fingerprint's halves across and down (null if rejected).

    What ``cache`` (a folder) remembers is not decoded again. ``threads``: 0, one a core.
    """
    wanted = list(dict.fromkeys(sha256s))
    checked = _remembered(cache / NAME)
    known = set(checked["sha256"])
    fresh = [sha256 for sha256 in wanted if sha256 not in known]
    bar = tqdm(total=len(fresh), desc="check", unit="image", disable=None)
    with ThreadPoolExecutor(threads or cores(), thread_name_prefix="check") as pool, bar:
        for start in range(0, len(fresh), CHUNK):
            rows = []
            for row in pool.map(
                lambda sha256: _check(images, sha256), fresh[start : start + CHUNK]
            ):
                rows.append(row)
                bar.update()
            checked = pl.concat([checked, pl.DataFrame(rows, schema=SCHEMA, orient="row")])
            with atomic(cache / NAME) as path:
                checked.write_parquet(path)
    return checked.filter(pl.col("sha256").is_in(wanted))


def _check(images: Images, sha256: str) -> Checked:
    try:
        image = decode(images.read(sha256), 3)
    except ImageError as error:
        return Checked(sha256, -1, -1, str(error), None, None)
    return Checked(sha256, image.width, image.height, None, *fingerprint(image))


def _remembered(path: Path) -> pl.DataFrame:
    empty = pl.DataFrame(schema=SCHEMA)
    if not path.is_file():
        return empty
    try:
        table = pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        warnings.warn(f"{path} is damaged and made again: {error}", stacklevel=3)
        return empty
    return table if table.schema == SCHEMA else empty
