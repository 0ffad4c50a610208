"""A CSV or Parquet list of images as a source: path, label, and perhaps role, id and metadata."""

import os
from pathlib import Path, PurePosixPath

import polars as pl

from irgen.catalog import manifest
from irgen.catalog.sources.folders import file_entry, refuse_escape
from irgen.catalog.sources.listing import Entry, Listing, check_key
from irgen.errors import SourceError

ENDINGS = (".csv", ".parquet")
TEXTS = ("path", "label", "role", "id")
TAKEN = {*manifest.SCHEMA, manifest.GONE, "width", "height"}


def list_table(path: Path) -> Listing:
    """The images a list names, by path relative to the list's folder, whatever their endings.

    An image that is not there stays listed, to be rejected with a reason. Raises SourceError if the
    list is damaged, lacks ``path`` or ``label``, names a path twice or one outside of its folder,
    has a column that the catalogue makes itself, or if none of its images is there.
    """
    columns = read_columns(path, str(path))
    found = {key: os.path.lexists(path.parent / key) for key in columns["key"]}
    refuse_missing(found, str(path), f"{path.parent}/")
    return Listing(
        entries=(_entry(key, path.parent, there) for key, there in sorted(found.items())),
        count=len(found),
        columns=columns,
    )


def read_columns(content: Path | bytes, source: str) -> pl.DataFrame:
    """What the list ``source`` says: ``key``, the path of an image relative to the list's folder,
    distinct and inside of it, ``label``, and any more. Raises SourceError as ``list_table``."""
    table = _read(content, source)
    _check_columns(table, source)
    keys = _keys(table["path"], source)
    return table.drop("path").insert_column(0, pl.Series("key", keys, pl.String))


def refuse_missing(found: dict[str, bool], source: str, place: str) -> None:
    """Raises SourceError if no image is found; ``place`` is where they are looked for."""
    if not any(found.values()):
        raise SourceError(
            f"{source}: none of the {len(found):,} images it names is there, "
            f"e.g. {place}{next(iter(found))}; paths count from the list's folder"
        )


def _read(content: Path | bytes, source: str) -> pl.DataFrame:
    texts = dict.fromkeys(TEXTS, pl.String)
    try:
        if source.lower().endswith(".parquet"):
            table = pl.read_parquet(content)
            there = [name for name in TEXTS if name in table.columns]
            return table.with_columns(pl.col(there).cast(pl.String))
        return pl.read_csv(content, schema_overrides=texts, infer_schema_length=None)
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise SourceError(f"{source} cannot be read as a list: {reason}") from None


def _check_columns(table: pl.DataFrame, path: str) -> None:
    for needed in ("path", "label"):
        if needed not in table.columns:
            raise SourceError(
                f"{path} has no column {needed!r}; it has {', '.join(table.columns)}; "
                "a list needs path and label, which may be empty (tokenizer.labels: clusters), and "
                "may have role, id and any metadata"
            )
    taken = sorted(TAKEN.intersection(table.columns))
    if taken:
        raise SourceError(
            f"{path}: the catalogue makes its own column {', '.join(taken)}; rename it in the list"
        )
    if not len(table):
        raise SourceError(f"{path} has no rows; list one image a row")


def _keys(paths: pl.Series, source: str) -> list[str]:
    """Paths with ``.`` and doubled slashes taken out, checked to be distinct and inside."""
    keys: list[str] = []
    seen: set[str] = set()
    for row, text in enumerate(paths, start=1):
        key = str(PurePosixPath(check_key(text or "", source)))
        if key == ".":
            raise SourceError(f"{source}: row {row} has no path")
        if key.startswith("/") or ".." in key.split("/"):
            raise SourceError(
                f"{source}: row {row}: {text!r} leads out of the list's folder; "
                "put the list above its images and give paths relative to it"
            )
        if key in seen:
            raise SourceError(
                f"{source}: row {row} names {key} a second time; name each image once"
            )
        seen.add(key)
        keys.append(key)
    return keys


def _entry(key: str, folder: Path, there: bool) -> Entry:
    path = folder / key
    if not there or path.is_dir():
        return Entry(key, "", None)
    refuse_escape(path, folder.resolve())
    return file_entry(key, path)
