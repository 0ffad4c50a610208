"""Images of a source that are packed already, so that a sync need not read them again."""

import hashlib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from irgen.catalog import manifest
from irgen.catalog.manifest import Row, RowsByKey
from irgen.catalog.shards import FOLDER, ShardWriter, find_intact
from irgen.catalog.sources.listing import Entry, Fetched
from irgen.errors import ArtifactError
from irgen.files.sealed import read_parquet, write_parquet


@dataclass(frozen=True)
class Packed:
    """Images that are packed already: `rows` of the manifest, whose shards are `intact`, and
    `leftover`, rows of a sync that was interrupted."""

    rows: RowsByKey
    leftover: dict[str, Row]
    intact: set[str]

    def find(self, entry: Entry) -> Row | None:
        """Return the row of the entry, if its bytes need not be read."""
        if entry.problem is not None:
            return self.refuse(entry.key, entry.problem)
        if entry.read is None:
            return make_absent(entry.key)
        if entry.etag is None:
            return None
        for row in (self.stored(entry.key), self.leftover.get(entry.key)):
            if row is not None and row.etag == entry.etag:
                return row._replace(problem=None)
        return None

    def refuse(self, key: str, problem: str) -> Row:
        """Return the row of an image that cannot be had now; its stored bytes stay, if any."""
        return (self.stored(key) or make_absent(key))._replace(problem=problem)

    def stored(self, key: str) -> Row | None:
        """Return the row in the manifest, if its bytes are there."""
        row = self.rows.get(key)
        return row if row is not None and row.shard in self.intact else None


def pack(
    entry: Entry, image: Fetched, stored: Row | None, shards: ShardWriter, revision: int
) -> Row:
    """Return the row of an image; pack its bytes unless they are stored already."""
    sha256 = hashlib.sha256(image.content).hexdigest()
    etag = image.etag or sha256
    if stored is not None and stored.sha256 == sha256:
        return stored._replace(etag=etag, version=image.version, problem=None)
    shard, offset = shards.add(entry.key, image.content)
    size = len(image.content)
    return Row(entry.key, size, etag, sha256, revision, shard, offset, image.version)


def save_leftover(folder: Path, shard: str, source: str, rows: Iterable[Row]) -> None:
    """Keep the rows of the images in a complete shard beside it, until a manifest lists them."""
    table = pl.DataFrame(list(rows), schema=manifest.SCHEMA, orient="row")
    write_parquet(folder / FOLDER / f"{shard}.parquet", table, {"source": source})


def load_leftover(folder: Path, source: str, old: pl.DataFrame) -> dict[str, Row]:
    """Return by key the rows that a sync of this source packed and the manifest does not list."""
    listed = set(old["shard"].drop_nulls())
    leftover: dict[str, Row] = {}
    for path in sorted((folder / FOLDER).glob("*.parquet")):
        with suppress(ArtifactError, pl.exceptions.PolarsError):  # then its images are read again
            table = read_parquet(path)
            ours = pl.read_parquet_metadata(path).get("source") == source
            if ours and table.schema == manifest.SCHEMA and path.stem not in listed:
                intact = find_intact(folder, table)
                leftover |= {row.key: row for row in manifest.rows(table) if row.shard in intact}
    return leftover


def name_files(rows: Iterable[Row]) -> set[str]:
    """Return the files among the shards that a sync that was interrupted left for these rows."""
    shards = {row.shard for row in rows if row.shard}
    return {f"{shard}.{ending}" for shard in shards for ending in ("tar", "parquet")}


def make_absent(key: str) -> Row:
    """Return the row of an image that is named but not there, or of a class folder without one."""
    return Row(key, 0, "", None, 0, None, None, None)
