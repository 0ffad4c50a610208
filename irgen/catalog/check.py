"""Check every image once in its life: decode and measure it, and keep the result by its hash."""

import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl
from tqdm import tqdm

from irgen.catalog import fingerprints
from irgen.catalog.images import pixels
from irgen.catalog.images.codecs import describe_decoders
from irgen.catalog.images.decode import decode_stored
from irgen.catalog.images.memory import require_memory
from irgen.catalog.shards import Images
from irgen.errors import ArtifactError, ImageError, IrgenWarning
from irgen.files.sealed import read_parquet, write_parquet

NAME = f"checked-{pixels.VERSION}-{fingerprints.VERSION}.parquet"
SCHEMA = pl.Schema(
    {
        "sha256": pl.String,
        "width": pl.Int32,  # pixels, upright; −1 if rejected
        "height": pl.Int32,
        "reason": pl.String,  # why the image is rejected; null if it is not
        "across": pl.UInt64,  # the two halves of its fingerprint; null if rejected
        "down": pl.UInt64,
        "decoders": pl.String,  # that rejected it; null if it is not rejected
    }
)
CHUNK, SHARE = 20_000, 0.1  # images between two saves; more once this share of them is more
SIDE = 64  # pixels that a fingerprint needs

Row = tuple[str, int, int, str | None, int | None, int | None, str | None]


def check_images(
    stored: Images, sha256s: pl.Series | Sequence[str], cache: Path, threads: int
) -> pl.DataFrame:
    """Return one row, columns of SCHEMA, for each distinct hash.

    Images whose result is in the folder `cache` are not decoded again, unless other decoders have
    rejected them. `threads`: 0, one a core. Raises MemoryError if memory runs out. All results are
    saved after CHUNK images and, as they grow, after SHARE of them, so that saving takes time
    proportional to the number of images.
    """
    distinct = pl.DataFrame({"sha256": sha256s}, {"sha256": pl.String}).unique(maintain_order=True)
    checked = _read_cache(cache / NAME)
    fresh = distinct.join(checked, on="sha256", how="anti", maintain_order="left")["sha256"]
    bar = tqdm(total=len(fresh), desc="check", unit="image", disable=None)
    with (
        ThreadPoolExecutor(threads or pixels.count_cores(), thread_name_prefix="check") as pool,
        bar,
    ):
        while len(fresh):
            count, rows = max(CHUNK, int(SHARE * len(checked))), []
            for row in pool.map(lambda sha: _check(stored, sha), fresh.head(count)):
                rows.append(row)
                bar.update()
            fresh = fresh.slice(count)
            checked = pl.concat([checked, pl.DataFrame(rows, schema=SCHEMA, orient="row")])
            write_parquet(cache / NAME, checked)
    wanted = checked.join(distinct, on="sha256", how="semi", maintain_order="left")
    return wanted.drop("decoders")


def _check(stored: Images, sha256: str) -> Row:
    try:
        return _measure(stored, sha256)
    except ImageError:  # decoders call it damage, too, if memory runs out
        require_memory()
    try:
        return _measure(stored, sha256, alone=True)
    except ImageError as error:
        return sha256, -1, -1, str(error), None, None, describe_decoders()


def _measure(stored: Images, sha256: str, alone: bool = False) -> Row:
    decoded = decode_stored(stored, sha256, 3, SIDE, alone=alone)
    prints = fingerprints.fingerprint(decoded.image)
    return sha256, decoded.width, decoded.height, None, *prints, None


def _read_cache(path: Path) -> pl.DataFrame:
    empty = pl.DataFrame(schema=SCHEMA)
    if not path.is_file():
        return empty
    try:
        table = read_parquet(path)
    except ArtifactError:
        warnings.warn(f"{path} is damaged and made again", IrgenWarning, stacklevel=3)
        return empty
    if table.schema != SCHEMA:
        return empty
    return table.filter(pl.col("decoders").fill_null(describe_decoders()) == describe_decoders())
