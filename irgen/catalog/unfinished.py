"""What a sync that was cut short has packed already: beside each of its complete shards lie the
rows of the images in it, until a manifest lists them."""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import polars as pl

from irgen.catalog import manifest
from irgen.catalog.manifest import Row
from irgen.catalog.shards import FOLDER, intact
from irgen.files import atomic


def save(folder: Path, shard: str, source: str, rows: Iterable[Row]) -> None:
    """Keeps the rows of the images in ``shard``, which is complete."""
    table = pl.DataFrame(list(rows), schema=manifest.SCHEMA, orient="row")
    with atomic(_path(folder, shard)) as path:
        table.write_parquet(path, metadata={"source": source})


def load(folder: Path, source: str, old: pl.DataFrame) -> dict[str, Row]:
    """By their keys, the rows that a sync of the same source packed and the manifest ``old`` does
    not list."""
    listed = set(old["shard"].drop_nulls())
    found: dict[str, Row] = {}
    for path in sorted((folder / FOLDER).glob("*.parquet")):
        with suppress(pl.exceptions.PolarsError, OSError):  # then its images are read again
            table = pl.read_parquet(path)
            ours = pl.read_parquet_metadata(path).get("source") == source
            if ours and table.schema == manifest.SCHEMA and path.stem not in listed:
                whole = intact(folder, table)
                found |= {row.key: row for row in manifest.rows(table) if row.shard in whole}
    return found


def files(rows: Iterable[Row]) -> set[str]:
    """The names of the files that hold such rows and their images."""
    shards = {row.shard for row in rows if row.shard}
    return {f"{shard}.tar" for shard in shards} | {_path(Path(), shard).name for shard in shards}


def _path(folder: Path, shard: str) -> Path:
    return folder / FOLDER / f"{shard}.parquet"
