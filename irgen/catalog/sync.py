"""Brings the packed copy of a source up to date: reads and writes only what is new or changed."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import polars as pl
from tqdm import tqdm

from irgen.catalog import manifest
from irgen.catalog.listing import Entry, Source
from irgen.catalog.shards import SHARD_BYTES, ShardWriter, intact, sweep


class Row(NamedTuple):
    """One row of the manifest, as ``manifest.SCHEMA`` has it."""

    key: str
    size: int
    etag: str
    sha256: str | None
    revision: int
    shard: str | None
    offset: int | None


@dataclass(frozen=True, kw_only=True)
class Change:
    """What a sync found, in images; ``relabelled``: the list says something else of the same
    image."""

    images: int
    new: int
    changed: int
    gone: int
    relabelled: int
    revision: int

    def __bool__(self) -> bool:
        return bool(self.new or self.changed or self.gone or self.relabelled)


def sync(source: Source, folder: Path, *, shard_bytes: int = SHARD_BYTES) -> Change:
    """Makes ``folder`` (manifest and shards) hold what ``source`` holds, and says what changed.

    An image keeps its revision and its place while its content stays the same, even if its etag
    does not. New and changed ones get the next revision, which is one higher than the last iff
    anything changed. A source by another name that shares no image with the manifest is another
    catalogue: its revision is 1. Killed at any moment, the next sync starts from the last manifest
    and ends the same. Raises SourceError if the source cannot be listed or read; then nothing
    changes.
    """
    revision, known_as = manifest.read_revision(folder)
    old = manifest.read(folder) if revision else pl.DataFrame(schema=manifest.SCHEMA)
    sweep(folder, old)
    known = {row.key: row for row in map(Row._make, old.select(manifest.SCHEMA.names()).rows())}
    listing = source.load()
    whole = intact(folder, old)
    rows = []
    with ShardWriter(folder, revision + 1, shard_bytes) as shards:
        bar = tqdm(listing.entries, "sync", listing.count, unit="image", disable=None)
        for entry in bar:
            rows.append(_row(entry, known.get(entry.key), whole, shards, revision + 1))
    if known_as != source.name and not any(row.sha256 and row.revision <= revision for row in rows):
        revision, known = 0, {}
        rows = [row._replace(revision=1) if row.sha256 else row for row in rows]
    rows += map(_absent, listing.empty_folders)
    new = _with_columns(rows, listing.columns)
    change = _change(known, rows, _relabelled(old, new), revision)
    if change or source.name != known_as or not new.equals(old):
        manifest.write(folder, new, revision=change.revision, source=source.name)
        sweep(folder, new)
    return change


def _row(entry: Entry, old: Row | None, whole: set[str], shards: ShardWriter, revision: int) -> Row:
    """The manifest's row for ``entry``; its bytes are read only if its etag is not the known one,
    and packed only if its content is not, or if the shard that holds it is damaged."""
    if entry.read is None:
        return _absent(entry.key)
    stored = old is not None and old.shard in whole
    if old is not None and stored and entry.etag is not None and entry.etag == old.etag:
        return old
    content = entry.read()
    sha256 = hashlib.sha256(content).hexdigest()
    etag = sha256 if entry.etag is None else entry.etag
    same = old is not None and old.sha256 == sha256
    if old is not None and same and stored:
        return old._replace(etag=etag)
    first_seen = old.revision if old is not None and same else revision
    shard, offset = shards.add(entry.key, content)
    return Row(entry.key, len(content), etag, sha256, first_seen, shard, offset)


def _absent(key: str) -> Row:
    return Row(key, 0, "", None, 0, None, None)


def _with_columns(rows: list[Row], columns: pl.DataFrame | None) -> pl.DataFrame:
    table = pl.DataFrame(rows, schema=manifest.SCHEMA, orient="row")
    if columns is not None:
        table = table.join(columns, on="key", how="left", validate="1:1")
    return table.sort("key").rechunk()


def _relabelled(old: pl.DataFrame, new: pl.DataFrame) -> int:
    """How many images have the same content and other columns of the list than before."""
    same = ("key", "sha256")
    plain = set(manifest.SCHEMA) - {"key"}
    before, after = (
        manifest.images(table).join(other, on=same, how="semi").sort("key").drop(plain)
        for table, other in ((old, new), (new, old))
    )
    if before.schema != after.schema:
        return before.height
    said = [table.select(said=pl.struct(pl.all()))["said"] for table in (before, after)]
    return int(said[0].ne_missing(said[1]).sum())


def _change(known: dict[str, Row], rows: list[Row], relabelled: int, revision: int) -> Change:
    before = {key: row.sha256 for key, row in known.items() if row.sha256}
    after = {row.key: row.sha256 for row in rows if row.sha256}
    new = sum(key not in before for key in after)
    gone = sum(key not in after for key in before)
    changed = sum(key in before and before[key] != sha for key, sha in after.items())
    return Change(
        images=len(after),
        new=new,
        changed=changed,
        gone=gone,
        relabelled=relabelled if known else 0,
        revision=revision + bool(new or changed or gone or (known and relabelled)),
    )
