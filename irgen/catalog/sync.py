"""Brings the packed copy of a source up to date: reads and writes only what is new or changed."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from tqdm import tqdm

from irgen.catalog import manifest, unfinished
from irgen.catalog.datasets.annotations import is_annotation
from irgen.catalog.manifest import Row
from irgen.catalog.shards import SHARD_BYTES, ShardWriter, intact, sweep
from irgen.catalog.sources.listing import Entry, Source
from irgen.catalog.sources.prefetch import Take, in_turn


@dataclass(frozen=True, kw_only=True)
class Change:
    """What a sync found, in images; ``relabelled``: the list says something else of the same
    image, or an annotation file is new, changed or gone."""

    images: int
    new: int
    changed: int
    gone: int
    relabelled: int
    revision: int

    def __bool__(self) -> bool:
        return bool(self.new or self.changed or self.gone or self.relabelled)


def sync(
    source: Source, folder: Path, *, shard_bytes: int = SHARD_BYTES, trained: int | None = None
) -> Change:
    """Makes ``folder`` (manifest and shards) hold what ``source`` holds, and says what changed.

    An image keeps its revision and its place while its content and what a list says of its label,
    role and id stay the same, even if its etag does not. New and changed ones get the next
    revision, which is one higher than the last iff anything changed. The manifest remembers what
    is gone; its bytes are kept if it was there after revision ``trained``, else not. A source by
    another name that shares no image with the manifest is another catalogue: its revision is 1.
    Killed at any moment, the next sync starts from the last manifest, reads nothing again that is
    in a complete shard, and ends the same. Raises SourceError if the source cannot be listed or
    read; then the manifest stays as it was.
    """
    revision, known_as, old, past = _stored(folder)
    known = _by_key(old)
    packed = unfinished.load(folder, source.name, old)
    sweep(folder, _wanted(old, past, trained), unfinished.files(packed.values()))
    listing = source.load()
    held = _Held(known, packed, intact(folder, old))
    fresh: list[Row] = []

    def finished(shard: str) -> None:
        unfinished.save(folder, shard, source.name, fresh)
        fresh.clear()

    rows = []
    with ShardWriter(folder, revision + 1, shard_bytes, finished) as shards:
        images = in_turn(listing, lambda entry: held.row(entry) is None)
        for entry, take in tqdm(images, "sync", listing.count, unit="image", disable=None):
            row = held.row(entry) or _read(entry, take, held, shards, fresh.append, revision + 1)
            if row is not None:
                rows.append(row)
            elif listing.columns is not None:
                rows.append(_absent(entry.key))
    if known_as != source.name and not any(_is_known(row, known) for row in rows):
        revision, known, past = 0, {}, past.clear()
    rows += map(_absent, listing.empty_folders)
    new = _with_revisions(_with_columns(rows, listing.columns), old if known else None, revision)
    change = _change(known, rows, _relabelled(old, new), revision)
    if known:
        past = pl.concat([past, _gone(old, new, change.revision)], how="diagonal")
    if change or source.name != known_as or not new.equals(old):
        manifest.write(folder, new, revision=change.revision, source=source.name, past=past)
    sweep(folder, _wanted(new, past, trained))
    return change


def look(source: Source, folder: Path) -> bool:
    """Whether a sync may find a difference, by the source's listing alone: no image is read.

    True if an image is new, gone, or has another etag, if a list says something else, if the packed
    copy is damaged or of another source; and for a source with a stamp, whose listing says nothing.
    Raises SourceError if the source cannot be listed.
    """
    _, known_as, old, _ = _stored(folder)
    if known_as != source.name or source.stamp is not None:
        return True
    listing = source.load()
    held = _Held(_by_key(old), {}, intact(folder, old))
    rows = [held.row(entry) for entry in listing.entries]
    found = [row for row in rows if row is not None]
    if len(found) < len(rows):
        return True
    found += map(_absent, listing.empty_folders)
    return not _with_columns(found, listing.columns).equals(old)


def _stored(folder: Path) -> tuple[int, str, pl.DataFrame, pl.DataFrame]:
    """Revision, source and tables of the manifest, what is there and what was; (0, "", empty,
    empty) without one."""
    revision, known_as = manifest.read_revision(folder)
    if not revision:
        empty = pl.DataFrame(schema=manifest.SCHEMA)
        return 0, known_as, empty, empty.with_columns(pl.lit(None, pl.Int32).alias(manifest.GONE))
    return revision, known_as, manifest.read(folder), manifest.read_past(folder)


def _wanted(table: pl.DataFrame, past: pl.DataFrame, trained: int | None) -> pl.DataFrame:
    """The shards that are wanted still."""
    if trained is None:
        return table.select("shard")
    held = past.filter(pl.col(manifest.GONE) > trained)
    return pl.concat([table.select("shard"), held.select("shard")])


def _by_key(table: pl.DataFrame) -> dict[str, Row]:
    return {row.key: row for row in manifest.rows(table)}


@dataclass(frozen=True)
class _Held:
    """What is packed already: by a sync that ended, in shards that are whole, or by one that was
    cut short."""

    known: dict[str, Row]
    packed: dict[str, Row]
    whole: set[str]

    def row(self, entry: Entry) -> Row | None:
        """The row of the entry, if it can be told without reading its bytes."""
        if entry.read is None:
            return _absent(entry.key)
        if entry.etag is None:
            return None
        for row in (self.stored(entry.key), self.packed.get(entry.key)):
            if row is not None and row.etag == entry.etag:
                return row
        return None

    def stored(self, key: str) -> Row | None:
        """The row in the manifest, if its bytes are there."""
        row = self.known.get(key)
        return row if row is not None and row.shard in self.whole else None


def _read(
    entry: Entry,
    take: Take,
    held: _Held,
    shards: ShardWriter,
    packed: Callable[[Row], None],
    revision: int,
) -> Row | None:
    """The row of an image that has to be read; packed only if its content is not there. None: it
    has gone."""
    fetched = take()
    if fetched is None:
        return None
    content = fetched.content
    sha256 = hashlib.sha256(content).hexdigest()
    etag = fetched.etag or sha256
    old = held.stored(entry.key)
    if old is not None and old.sha256 == sha256:
        return old._replace(etag=etag, version=fetched.version)
    shard, offset = shards.add(entry.key, content)
    row = Row(entry.key, len(content), etag, sha256, revision, shard, offset, fetched.version)
    packed(row)
    return row


def _is_known(row: Row, known: dict[str, Row]) -> bool:
    """Whether the image was there with this content."""
    old = known.get(row.key)
    return row.sha256 is not None and old is not None and old.sha256 == row.sha256


def _with_revisions(new: pl.DataFrame, old: pl.DataFrame | None, revision: int) -> pl.DataFrame:
    """``new`` with the revision that first saw each image as it is: that of ``old``, or the one
    after ``revision``. ``old`` None: another catalogue, at its first."""
    unseen = pl.when(pl.col("sha256").is_null()).then(0).otherwise(revision + 1)
    if old is None:
        return new.with_columns(unseen.cast(pl.Int32).alias("revision"))
    same = _identity(old, new)
    seen = manifest.images(old).select(*same, seen="revision")
    joined = new.join(seen, on=same, how="left", nulls_equal=True, maintain_order="left")
    revisions = pl.coalesce("seen", unseen).cast(pl.Int32).alias("revision")
    return joined.with_columns(revisions).drop("seen").select(new.columns)


def _gone(old: pl.DataFrame, new: pl.DataFrame, revision: int) -> pl.DataFrame:
    """The images of ``old`` that are not in ``new`` as they were, gone since ``revision``."""
    gone = manifest.images(old).join(new, on=_identity(old, new), how="anti", nulls_equal=True)
    kept = [name for name in (*manifest.SCHEMA, *manifest.IDENTITY) if name in gone.columns]
    return gone.select(*kept, pl.lit(revision, pl.Int32).alias(manifest.GONE))


def _identity(old: pl.DataFrame, new: pl.DataFrame) -> list[str]:
    """The columns that tell whether an image is the one it was."""
    both = [n for n in manifest.IDENTITY if n in new.columns and old.schema.get(n) == new.schema[n]]
    return ["key", "sha256", *both]


def _absent(key: str) -> Row:
    return Row(key, 0, "", None, 0, None, None, None)


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
    before, notes_before = _contents(known.values())
    after, notes = _contents(rows)
    relabelled += sum(notes.get(k) != notes_before.get(k) for k in notes.keys() | notes_before)
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


def _contents(rows: Iterable[Row]) -> tuple[dict[str, str], dict[str, str]]:
    """The hashes by key of the images that are there, and of the annotation files."""
    there = {row.key: row.sha256 for row in rows if row.sha256}
    notes = {key: sha256 for key, sha256 in there.items() if is_annotation(key)}
    return {key: sha256 for key, sha256 in there.items() if key not in notes}, notes
