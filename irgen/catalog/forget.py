"""Delete images that the source does not have any more for good: bytes, names and hashes."""

import html
import json
import re
import tarfile
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO

import polars as pl

from irgen.catalog import manifest
from irgen.catalog.shards import BLOCK, shard_path
from irgen.files.atomic import atomic
from irgen.files.sealed import read_parquet, write_parquet

NAME = "deleted"  # of a member of a shard whose bytes were wiped
WORD = rb"[\w./-]"  # what a longer name may go on with


@dataclass(frozen=True)
class Traces:
    """Ids and content hashes of the images to forget, which are looked for in files."""

    ids: frozenset[str]
    sha256s: frozenset[str]

    @cached_property
    def pattern(self) -> re.Pattern[bytes]:
        """Match a hash, or a whole id as text, HTML or JSON writes it."""
        texts = {text for name in self.ids for text in _spellings(name)}
        names = b"|".join(re.escape(text.encode()) for text in sorted(texts))
        hashes = b"".join(b"|" + sha256.encode() for sha256 in sorted(self.sha256s))
        return re.compile(b"(?<!%b)(?:%b)(?!%b)%b" % (WORD, names, WORD, hashes))


def _spellings(name: str) -> set[str]:
    """Return a name as HTML and JSON may spell it.

    >>> sorted(_spellings('a"b'))
    ['a"b', 'a&#34;b', 'a&quot;b', 'a\\\\"b']
    """
    escaped = html.escape(name)
    by_number = escaped.replace("&quot;", "&#34;").replace("&#x27;", "&#39;")
    return {name, escaped, by_number, json.dumps(name)[1:-1]}


def find_contents(folder: Path, ids: Collection[str]) -> dict[str, tuple[set[str], set[str]]]:
    """Return for each of these keys or ids the content hashes of its present images, and of past
    ones. Both are empty without a manifest."""
    contents: dict[str, tuple[set[str], set[str]]] = {name: (set(), set()) for name in ids}
    if not manifest.read_revision(folder)[0]:
        return contents
    for part, table in enumerate(manifest.read_with_past(folder)):
        for column in {"key", "id"} & set(table.columns):
            rows = table.filter(pl.col(column).is_in(list(ids))).drop_nulls("sha256")
            for name, sha256 in rows.select(column, "sha256").iter_rows():
                contents[name][part].add(sha256)
    return contents


def find_present(folder: Path, sha256s: Collection[str]) -> dict[str, str]:
    """Return which of these contents the source has now, each with the key of one image."""
    if not manifest.read_revision(folder)[0]:
        return {}
    table = manifest.images(manifest.read(folder))
    rows = table.filter(pl.col("sha256").is_in(list(sha256s))).select("sha256", "key")
    return dict(rows.iter_rows())


def forget_past(folder: Path, sha256s: Collection[str]) -> int:
    """Wipe past images with these contents from the shards, and delete their rows from the
    manifest; return how many. If it is killed, call it again. No stage may run meanwhile."""
    if not manifest.read_revision(folder)[0]:
        return 0
    gone = manifest.read_past(folder).filter(pl.col("sha256").is_in(list(sha256s)))
    for (shard,), rows in gone.group_by("shard"):
        if (path := shard_path(folder, str(shard))).is_file():
            wipe_members(path, set(rows["offset"]))
    if len(gone):
        manifest.drop_past(folder, sha256s)
    return len(gone)


def wipe_members(path: Path, offsets: Collection[int]) -> None:
    """Wipe names and bytes of the images that start at ``offsets`` in a shard; the others stay
    where they are. The shard is replaced as a whole."""
    with tarfile.open(path) as archive:
        members = [member for member in archive if member.offset_data in offsets]
    if not members:
        return
    with atomic(path) as new, path.open("rb") as old, new.open("wb") as file:
        for member in members:
            _copy(old, file, member.offset - old.tell())
            end = member.offset_data + -(-member.size // BLOCK) * BLOCK
            wiped = tarfile.TarInfo(NAME)
            wiped.size = end - member.offset - BLOCK
            file.write(wiped.tobuf(tarfile.GNU_FORMAT))
            file.write(bytes(wiped.size))
            old.seek(end)
        _copy(old, file, path.stat().st_size - old.tell())


def _copy(old: IO[bytes], new: IO[bytes], count: int) -> None:
    while count:
        block = old.read(min(count, 1 << 20))
        new.write(block)
        count -= len(block)


def drop_rows(paths: Iterable[Path], sha256s: Collection[str]) -> None:
    """Delete the rows of images with these contents from cached tables."""
    for path in paths:
        table = read_parquet(path)
        kept = table.filter(~pl.col("sha256").is_in(list(sha256s)))
        if len(kept) < len(table):
            write_parquet(path, kept)


def has_rows(paths: Iterable[Path], sha256s: Collection[str]) -> bool:
    """Tell whether one of these tables lists an image with one of these contents."""
    tables = (pl.scan_parquet(path) for path in paths)
    listed = (t.select("sha256") for t in tables if "sha256" in t.collect_schema())
    is_sought = pl.col("sha256").is_in(list(sha256s))
    return any(len(table.filter(is_sought).collect()) for table in listed)
