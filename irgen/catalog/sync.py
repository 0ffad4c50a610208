"""Bring the packed copy of a source up to date: read and write only what is new or changed."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import polars as pl
from tqdm import tqdm

from irgen.catalog import manifest
from irgen.catalog.changes import Change, compare, count_relabelled, find_gone, set_revisions
from irgen.catalog.column_types import settle_types
from irgen.catalog.datasets.annotations import is_annotation
from irgen.catalog.failures import Failures, Outage
from irgen.catalog.manifest import Row, RowCollector, RowsByKey
from irgen.catalog.packed import (
    Packed,
    load_leftover,
    make_absent,
    name_files,
    pack,
    save_leftover,
)
from irgen.catalog.shards import SHARD_BYTES, Images, ShardWriter, find_intact, sweep_strays
from irgen.catalog.sources.listing import Entry, Listing, Read, Source, read_in_order, replace_top
from irgen.catalog.sources.selection import describe_left_out
from irgen.errors import SourceError, UnreadableError

# Called with the images of the last manifest, the new ones, past ones, and their bytes. Returns
# whether a person accepted removals; raises to keep all.
Check = Callable[[pl.DataFrame, pl.DataFrame, pl.DataFrame, Images], bool]


def sync(
    source: Source,
    folder: Path,
    *,
    shard_bytes: int = SHARD_BYTES,
    trained: int | None = None,
    max_unreadable: float = 0.0,
    check: Check | None = None,
) -> Change:
    """Make `folder` (manifest and shards) hold what `source` holds; return what changed.

    An image keeps its revision and its place while its content and what a list says of its label,
    role and id stay the same, even if its etag does not. New and changed ones get the next
    revision, which is one higher than the last if and only if anything changed. The manifest
    remembers what is gone; its bytes are kept if it was there after revision `trained`. It also
    remembers the top folder that keys lack, so that images keep their keys when something else
    appears beside that folder. A source by another name that shares no image with the manifest is
    another catalogue: its revision is 1. Before another manifest of the same catalogue is written,
    `check` judges what it takes away; if it raises, the manifest and its images stay.
    An image that cannot be had (UnreadableError) is not gone: the manifest keeps its stored bytes,
    if any, with the problem, and the next sync tries again.
    Killed at any moment, the next sync starts from the last manifest, reads nothing again that is
    in a complete shard, and ends the same. Raises SourceError if the source cannot be listed or
    read, if more than the share `max_unreadable` of its images cannot be had, or if none can; then
    the manifest stays as it was.
    """
    revision, name, old, past = _read_manifest(folder)
    leftover = load_leftover(folder, source.name, old)
    sweep_strays(folder, _kept_shards(old, past, trained), name_files(leftover.values()))
    listing = _load_listing(source, folder, name, old)
    packed = Packed(RowsByKey(old), leftover, find_intact(folder, old))
    failures = Failures(max_unreadable, listing.count)
    unsaved: list[Row] = []

    def save(shard: str) -> None:
        save_leftover(folder, shard, source.name, unsaved)
        unsaved.clear()

    with ShardWriter(folder, revision + 1, shard_bytes, save) as shards:
        rows = _read_rows(listing, packed, failures, shards, unsaved, revision + 1)
    rows = _to_table(rows, listing)
    before = old if len(old) else None
    if name != source.name and not _share_image(rows, old):
        revision, before, past = 0, None, past.clear()
    new = set_revisions(rows, before, revision)
    change = replace(
        compare(before, new, count_relabelled(old, new), revision),
        left_out=sum(listing.skipped.values()) + sum(listing.ignored.values()),
        notes=(*describe_left_out(listing.skipped, listing.ignored), *listing.notes),
    )
    accepted = 0 if before is None else manifest.read_accepted(folder)
    if before is not None and check is not None and check(old, new, past, Images(folder, old, new)):
        accepted = change.revision
    if before is not None:
        past = pl.concat([past, find_gone(old, new, change.revision)], how="diagonal")
    is_same = source.name == name and listing.top == manifest.read_top(folder)
    if change or not is_same or not new.equals(old):
        manifest.write(
            folder,
            new,
            revision=change.revision,
            source=source.name,
            top=listing.top,
            accepted=accepted,
            past=past,
        )
    sweep_strays(folder, _kept_shards(new, past, trained))
    return change


def _read_rows(
    listing: Listing,
    packed: Packed,
    failures: Failures,
    shards: ShardWriter,
    unsaved: list[Row],
    revision: int,
) -> pl.DataFrame:
    """Return the row of each image of the listing. Read and pack those that are not `packed`, and
    note their rows in `unsaved`. Raises SourceError if the source is down, or if more images cannot
    be had than `failures` allows."""
    outage, rows = Outage(), RowCollector()

    def fetch(entry: Entry, read: Read) -> Row | None:
        """Return the row of an image that is read; None: it has gone."""
        try:
            image = read()
        except UnreadableError as error:
            outage.note(error)
            return packed.refuse(entry.key, str(error))
        outage.note(None)
        if image is None:
            return None
        row = pack(entry, image, packed.stored(entry.key), shards, revision)
        if row.revision == revision:
            unsaved.append(row)
        return row

    entries = read_in_order(listing, lambda entry: packed.find(entry) is None)
    for entry, read in tqdm(entries, "sync", listing.count, unit="image", disable=None):
        row = packed.find(entry) or fetch(entry, read)
        if row is None and listing.columns is not None:
            row = make_absent(entry.key)
        if row is not None:
            rows.add(row)
            _note_problem(row, failures)
    table = rows.table()
    if failures and not len(manifest.images(table).filter(pl.col("problem").is_null())):
        failures.refuse_all()
    return table


def _note_problem(row: Row, failures: Failures) -> None:
    """Count the row if its image cannot be had. Raises SourceError if it is one too many, or an
    annotation file, without which labels would be lost."""
    if row.problem is not None:
        if is_annotation(row.key):
            raise SourceError(row.problem)
        failures.add(row.key, row.problem)


def has_changed(source: Source, folder: Path) -> bool:
    """Return whether a sync may find a difference, by the source's listing: no image is read.

    True if an image is new, gone, or has another etag, if a list says something else, if the packed
    copy is damaged or of another source; and for a source with a stamp, whose listing says nothing.
    Raises SourceError if the source cannot be listed.
    """
    _, name, old, _ = _read_manifest(folder)
    if name != source.name or source.stamp is not None:
        return True
    listing = _load_listing(source, folder, name, old)
    packed, rows = Packed(RowsByKey(old), {}, find_intact(folder, old)), RowCollector()
    for entry in listing.entries:
        row = packed.find(entry)
        if row is None:
            return True
        rows.add(row)
    return not _to_table(rows.table(), listing).equals(old)


def _load_listing(source: Source, folder: Path, name: str, old: pl.DataFrame) -> Listing:
    """Return the source's listing, with keys and types as in `old`, the manifest of the source
    `name`.

    If the source has a single top folder now that was never listed under its own name, as when an
    archive was packed again, that folder is left out instead of the one before.
    """
    listing, top = source.load(), manifest.read_top(folder)
    listing = settle_types(listing, source, old if name == source.name else None)
    if top is None or name != source.name:
        return listing
    if top and listing.top and not old["key"].str.starts_with(listing.top).any():
        return listing
    return replace_top(listing, top, source.name)


def _read_manifest(folder: Path) -> tuple[int, str, pl.DataFrame, pl.DataFrame]:
    """Return the manifest's revision, source, images and past images; empty without one."""
    revision, name = manifest.read_revision(folder)
    if not revision:
        empty = pl.DataFrame(schema=manifest.SCHEMA)
        return 0, name, empty, empty.with_columns(pl.lit(None, pl.Int32).alias(manifest.GONE))
    return revision, name, *manifest.read_with_past(folder)


def _kept_shards(table: pl.DataFrame, past: pl.DataFrame, trained: int | None) -> pl.DataFrame:
    if trained is None:
        return table.select("shard")
    recent = past.filter(pl.col(manifest.GONE) > trained)
    return pl.concat([table.select("shard"), recent.select("shard")])


def _share_image(rows: pl.DataFrame, old: pl.DataFrame) -> bool:
    """Tell whether an image has the same key and content in both."""
    same = ["key", "sha256"]
    return len(manifest.images(rows).join(old, on=same, how="semi")) > 0


def _to_table(rows: pl.DataFrame, listing: Listing) -> pl.DataFrame:
    """Return the manifest of images, `rows`, of a listing: with its class folders without images,
    and the columns of its list."""
    table = pl.concat([rows, RowCollector(map(make_absent, listing.empty_folders)).table()])
    if listing.columns is not None:
        table = table.join(listing.columns, on="key", how="left", validate="1:1")
    return (table if table["key"].is_sorted() else table.sort("key")).rechunk()
