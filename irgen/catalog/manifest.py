"""Manifest: a list of the present and past images of the source, and where their bytes are."""

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from irgen.catalog.columns import METADATA, flatten, nest
from irgen.errors import ArtifactError
from irgen.files.records import damaged
from irgen.files.sealed import check_seal, read_parquet, write_parquet
from irgen.files.workspace import MANIFEST as NAME

SCHEMA = pl.Schema(
    {
        "key": pl.String,  # a path inside the source; a class folder without images ends in "/"
        "size": pl.Int64,  # bytes
        "etag": pl.String,  # equal etags: not read again
        "sha256": pl.String,  # null: listed, but not there
        "revision": pl.Int32,  # of the sync that first saw this content under this key
        "shard": pl.String,
        "offset": pl.Int64,  # where the bytes start in the shard
        "version": pl.String,  # that a versioned bucket gives this state of the object
        "problem": pl.String,  # why the last sync could not read it; its old bytes stay, if any
    }
)
IDENTITY = ("label", "role", "id")  # columns of a list that make an image another one
RESTORE = "bring it back (dvc checkout download), or delete it, which fetches all images anew"
NOTES = ("revision", "source", "top", "accepted")  # of the whole manifest
GONE = "gone"  # first revision without the image; null while it is there
CHUNK = 65_536  # rows that are collected as tuples before they become columns
OURS = (*SCHEMA, *IDENTITY, GONE)  # all other columns of the file are the user's


class Row(NamedTuple):
    """One row of the manifest, as SCHEMA has it."""

    key: str
    size: int
    etag: str
    sha256: str | None
    revision: int
    shard: str | None
    offset: int | None
    version: str | None
    problem: str | None = None


def rows(table: pl.DataFrame) -> list[Row]:
    """Return the rows of a manifest, without the columns of an image list."""
    return [Row(*row) for row in table.select(SCHEMA.names()).iter_rows()]


class RowsByKey:
    """Look up the rows of a manifest by key. They stay in its columns, and keys are found by their
    hash, in 16 bytes a row: of ten million rows, tuples would take 6 GB more, and a dict 2 GB."""

    def __init__(self, table: pl.DataFrame) -> None:
        self._table = table.select(SCHEMA.names())
        hashes = np.fromiter(map(hash, table["key"]), np.int64, len(table))
        self._numbers = hashes.argsort()
        self._hashes = hashes[self._numbers]

    def get(self, key: str) -> Row | None:
        """Return the row with this key; None if there is none."""
        wanted = np.int64(hash(key))
        first = int(self._hashes.searchsorted(wanted))
        for position in range(first, len(self._hashes)):
            if self._hashes[position] != wanted:
                break
            row = Row(*self._table.row(int(self._numbers[position])))
            if row.key == key:
                return row
        return None


class RowCollector:
    """Collect rows in columns, a chunk at a time: tuples take five times as much memory."""

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self._tables: list[pl.DataFrame] = []
        self._fresh: list[Row] = []
        for row in rows:
            self.add(row)

    def add(self, row: Row) -> None:
        """Add a row."""
        self._fresh.append(row)
        if len(self._fresh) == CHUNK:
            self._tables.append(self._pop_fresh())

    def table(self) -> pl.DataFrame:
        """Return the rows so far, columns of SCHEMA, as they were added."""
        self._tables = [pl.concat([*self._tables, self._pop_fresh()])]
        return self._tables[0]

    def _pop_fresh(self) -> pl.DataFrame:
        table = pl.DataFrame(self._fresh, schema=SCHEMA, orient="row")
        self._fresh.clear()
        return table


def images(table: pl.DataFrame) -> pl.DataFrame:
    """Return the rows whose bytes are there."""
    return table.filter(pl.col("sha256").is_not_null())


def unreadable(table: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of images that the last sync could not read."""
    return table.filter(pl.col("problem").is_not_null())


def absent(table: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of images that a list names and that are not there."""
    is_missing = pl.col("sha256").is_null() & pl.col("problem").is_null()
    return table.filter(is_missing & ~pl.col("key").str.ends_with("/"))


def read(folder: Path) -> pl.DataFrame:
    """Return the manifest below `folder`, sorted by key, with the columns of an image list; the
    user's own are in `metadata`.

    Raises ArtifactError if it is missing, damaged or lacks a column.
    """
    return read_with_past(folder)[0]


def read_past(folder: Path) -> pl.DataFrame:
    """Return the images that the source had before: columns of SCHEMA, IDENTITY, and `gone`.

    Each was there from `revision` to before `gone`. If label, role or id of an image changed, the
    table has it as it was. Raises as `read` does.
    """
    return read_with_past(folder)[1]


def read_with_past(folder: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return what `read` and `read_past` do, from one reading of the file."""
    table, is_there = _read(folder), pl.col(GONE).is_null()
    past = table.filter(~is_there).drop(METADATA, strict=False)
    return table.filter(is_there).drop(GONE), past


def _read(folder: Path) -> pl.DataFrame:
    path = folder / NAME
    if not path.is_file():
        raise ArtifactError(f"{path} is missing: run the download stage (dvc repro download)")
    table = read_parquet(path, RESTORE)
    if "problem" not in table.columns:  # of a project before images could have one
        table = table.with_columns(pl.lit(None, pl.String).alias("problem"))
    expected = {**SCHEMA, GONE: pl.Int32}
    wrong = [name for name, kind in expected.items() if table.schema.get(name) != kind]
    if wrong:
        raise ArtifactError(
            f"{path} has no proper column {', '.join(wrong)}; delete {folder} and run again"
        )
    return nest(table, OURS)


def read_revision(folder: Path) -> tuple[int, str]:
    """Return the manifest's revision and the name of its source; (0, "") without one."""
    notes = _read_notes(folder)
    return int(notes.get("revision", 0)), notes.get("source", "")


def read_top(folder: Path) -> str | None:
    """Return the top folder of the source that keys lack, with its slash; "" if they lack none,
    None if the manifest does not say."""
    return _read_notes(folder).get("top")


def read_accepted(folder: Path) -> int:
    """Return the revision at which a person last accepted removals; 0 if nobody did."""
    return int(_read_notes(folder).get("accepted", 0))


def drop_past(folder: Path, sha256s: Collection[str]) -> None:
    """Rewrite the manifest without the past images of these contents."""
    table, notes = _read(folder), _read_notes(folder)
    kept = table.filter(pl.col(GONE).is_null() | ~pl.col("sha256").is_in(list(sha256s)))
    notes = {key: text for key, text in notes.items() if key in NOTES}
    write_parquet(folder / NAME, flatten(kept, OURS), notes)


def _read_notes(folder: Path) -> dict[str, str]:
    path = folder / NAME
    if not path.is_file():
        return {}
    try:
        check_seal(path, RESTORE)
        return pl.read_parquet_metadata(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise damaged(path, error, RESTORE) from None


def write(
    folder: Path,
    table: pl.DataFrame,
    *,
    revision: int,
    source: str,
    top: str = "",
    accepted: int = 0,
    past: pl.DataFrame | None = None,
) -> None:
    """Write the manifest, sorted by key, followed by the `past` images, whole or not at all. `top`:
    the top folder of the source that keys lack; `accepted`: as `read_accepted` returns it."""
    table = table.sort("key").with_columns(pl.lit(None, pl.Int32).alias(GONE))
    if past is not None:
        columns = [name for name in past.columns if name in table.columns]
        table = pl.concat([table, past.select(columns).sort("key", GONE)], how="diagonal")
    notes = {"revision": str(revision), "source": source, "top": top}
    notes |= {"accepted": str(accepted)} if accepted else {}
    write_parquet(folder / NAME, flatten(table, OURS), notes)
