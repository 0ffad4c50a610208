"""Bring the packed copy of a source up to date: read and write only what is new or changed."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl
from tqdm import tqdm

from irgen.catalog import manifest
from irgen.catalog.column_types import settle_types
from irgen.catalog.columns import flatten
from irgen.catalog.datasets.annotations import is_annotation
from irgen.catalog.failures import Failures, Outage
from irgen.catalog.manifest import Row
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


@dataclass(frozen=True, kw_only=True)
class Change:
    """Numbers of images that a sync changed. `relabelled`: the list has other values for the same
    image, or an annotation file is new, changed or gone. `unreadable`: cannot be had now.
    `left_out`: number of files that are no images or ignored; `notes`: lines that name them."""

    images: int
    new: int
    changed: int
    gone: int
    relabelled: int
    revision: int
    unreadable: int = 0
    left_out: int = 0
    notes: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.new or self.changed or self.gone or self.relabelled)


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
    stored = _rows_by_key(old)
    leftover = load_leftover(folder, source.name, old)
    sweep_strays(folder, _kept_shards(old, past, trained), name_files(leftover.values()))
    listing = _load_listing(source, folder, name, old)
    packed = Packed(stored, leftover, find_intact(folder, old))
    failures, outage = Failures(max_unreadable, listing.count), Outage()
    unsaved: list[Row] = []

    def save_finished(shard: str) -> None:
        save_leftover(folder, shard, source.name, unsaved)
        unsaved.clear()

    rows = []
    with ShardWriter(folder, revision + 1, shard_bytes, save_finished) as shards:

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
            row = pack(entry, image, packed.stored(entry.key), shards, revision + 1)
            if row.revision > revision:
                unsaved.append(row)
            return row

        entries = read_in_order(listing, lambda entry: packed.find(entry) is None)
        for entry, read in tqdm(entries, "sync", listing.count, unit="image", disable=None):
            row = packed.find(entry) or fetch(entry, read)
            if row is None and listing.columns is not None:
                row = make_absent(entry.key)
            if row is not None:
                rows.append(row)
                _note_problem(row, failures)
    if failures and not any(row.sha256 and row.problem is None for row in rows):
        failures.refuse_all()
    if name != source.name and not any(_is_stored(row, stored) for row in rows):
        revision, stored, past = 0, {}, past.clear()
    rows += map(make_absent, listing.empty_folders)
    new = _with_revisions(_to_table(rows, listing.columns), old if stored else None, revision)
    change = replace(
        _compare(stored, rows, _count_relabelled(old, new), revision),
        left_out=sum(listing.skipped.values()) + sum(listing.ignored.values()),
        notes=(*describe_left_out(listing.skipped, listing.ignored), *listing.notes),
    )
    accepted = manifest.read_accepted(folder) if stored else 0
    if stored and check is not None and check(old, new, past, Images(folder, old, new)):
        accepted = change.revision
    if stored:
        past = pl.concat([past, _find_gone(old, new, change.revision)], how="diagonal")
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
    stored = _rows_by_key(old)
    listing = _load_listing(source, folder, name, old)
    packed = Packed(stored, {}, find_intact(folder, old))
    rows = [packed.find(entry) for entry in listing.entries]
    known_rows = [row for row in rows if row is not None]
    if len(known_rows) < len(rows):
        return True
    known_rows += map(make_absent, listing.empty_folders)
    return not _to_table(known_rows, listing.columns).equals(old)


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
    return revision, name, manifest.read(folder), manifest.read_past(folder)


def _kept_shards(table: pl.DataFrame, past: pl.DataFrame, trained: int | None) -> pl.DataFrame:
    if trained is None:
        return table.select("shard")
    recent = past.filter(pl.col(manifest.GONE) > trained)
    return pl.concat([table.select("shard"), recent.select("shard")])


def _rows_by_key(table: pl.DataFrame) -> dict[str, Row]:
    return {row.key: row for row in manifest.rows(table)}


def _is_stored(row: Row, stored: dict[str, Row]) -> bool:
    old = stored.get(row.key)
    return row.sha256 is not None and old is not None and old.sha256 == row.sha256


def _with_revisions(new: pl.DataFrame, old: pl.DataFrame | None, revision: int) -> pl.DataFrame:
    """Give each image its revision: that of `old` if it is unchanged, else the next one.

    `old` None: another catalogue, at its first revision.
    """
    unseen = pl.when(pl.col("sha256").is_null()).then(0).otherwise(revision + 1)
    if old is None:
        return new.with_columns(unseen.cast(pl.Int32).alias("revision"))
    same = _identity(old, new)
    seen = manifest.images(old).select(*same, seen="revision")
    joined = new.join(seen, on=same, how="left", nulls_equal=True, maintain_order="left")
    revisions = pl.coalesce("seen", unseen).cast(pl.Int32).alias("revision")
    return joined.with_columns(revisions).drop("seen").select(new.columns)


def _find_gone(old: pl.DataFrame, new: pl.DataFrame, revision: int) -> pl.DataFrame:
    """Return the images of `old` that are missing or changed in `new`, gone since `revision`."""
    gone = manifest.images(old).join(new, on=_identity(old, new), how="anti", nulls_equal=True)
    columns = [name for name in (*manifest.SCHEMA, *manifest.IDENTITY) if name in gone.columns]
    return gone.select(*columns, pl.lit(revision, pl.Int32).alias(manifest.GONE))


def _identity(old: pl.DataFrame, new: pl.DataFrame) -> list[str]:
    """Return the columns in which an unchanged image agrees in both tables."""
    both = [n for n in manifest.IDENTITY if n in new.columns and old.schema.get(n) == new.schema[n]]
    return ["key", "sha256", *both]


def _to_table(rows: list[Row], columns: pl.DataFrame | None) -> pl.DataFrame:
    table = pl.DataFrame(rows, schema=manifest.SCHEMA, orient="row")
    if columns is not None:
        table = table.join(columns, on="key", how="left", validate="1:1")
    return table.sort("key").rechunk()


def _count_relabelled(old: pl.DataFrame, new: pl.DataFrame) -> int:
    """Count the images whose content is the same, but not their columns in the list."""
    same = ("key", "sha256")
    plain = set(manifest.SCHEMA) - {"key"}
    before, after = (
        flatten(manifest.images(table), manifest.OURS)
        .join(other.select(same), on=same, how="semi")
        .sort("key")
        .drop(plain)
        for table, other in ((old, new), (new, old))
    )
    names = {**before.schema, **after.schema}
    empty = pl.Series([None] * len(before))
    changed = pl.repeat(False, len(before), dtype=pl.Boolean, eager=True)
    for name in names:
        changed |= _differ(*(t.get_column(name, default=empty) for t in (before, after)))
    return int(changed.sum())


def _differ(before: pl.Series, after: pl.Series) -> pl.Series:
    """Return where two columns differ (n,) bool."""
    try:
        return before.ne_missing(after)
    except pl.exceptions.PolarsError:  # values of such types are never equal
        return before.is_not_null() | after.is_not_null()


def _compare(stored: dict[str, Row], rows: list[Row], relabelled: int, revision: int) -> Change:
    before, notes_before = _hashes(stored.values())
    after, notes = _hashes(rows)
    relabelled += sum(notes.get(k) != notes_before.get(k) for k in notes.keys() | notes_before)
    new = sum(key not in before for key in after)
    gone = sum(key not in after for key in before)
    changed = sum(key in before and before[key] != sha for key, sha in after.items())
    return Change(
        images=len(after),
        new=new,
        changed=changed,
        gone=gone,
        relabelled=relabelled if stored else 0,
        revision=revision + bool(new or changed or gone or (stored and relabelled)),
        unreadable=sum(row.problem is not None for row in rows),
    )


def _hashes(rows: Iterable[Row]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the hashes by key of the images that are there, and of the annotation files."""
    hashes = {row.key: row.sha256 for row in rows if row.sha256}
    notes = {key: sha256 for key, sha256 in hashes.items() if is_annotation(key)}
    return {key: sha256 for key, sha256 in hashes.items() if key not in notes}, notes
