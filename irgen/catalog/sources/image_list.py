"""A CSV or Parquet list of images as a source: path, label, and perhaps role, id and metadata."""

import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import polars as pl

from irgen.catalog.columns import nest, stored_type
from irgen.catalog.sources.listing import Entry, Listing, check_key
from irgen.catalog.sources.local import make_entry
from irgen.errors import SourceError

ENDINGS = (".csv", ".parquet")
TEXTS = ("path", "label", "role", "id")


def list_file(path: Path) -> Listing:
    """List the images that a local list names, by path relative to the list's folder.

    An image that is not there stays listed, to be rejected with a reason. Raises SourceError if the
    list is damaged, lacks `path` or `label`, names a path twice or one outside of its folder, has a
    column of a type that cannot be kept, or if none of its images is there.
    """
    columns = read_columns(path, str(path))
    inside = path.parent.resolve()
    paths = {key: path.parent / key for key in columns["key"]}
    entries = {
        key: make_entry(key, file, inside)
        for key, file in paths.items()
        if os.path.lexists(file) and not file.is_dir()
    }
    return make_listing(columns, str(path), f"{path.parent}/", entries)


def make_listing(
    columns: pl.DataFrame,
    source: str,
    folder: str,
    entries: Mapping[str, Entry],
    ahead: int = 0,
) -> Listing:
    """Return the listing of what the list `source` says; `entries`: the images that are there.

    Raises SourceError if there is none in `folder`.
    """
    keys = sorted(columns["key"])
    if not entries:
        raise SourceError(
            f"{source}: none of the {len(keys):,} images it names is there, "
            f"e.g. {folder}{keys[0]}; paths count from the list's folder"
        )
    return Listing(
        entries=(entries.get(key) or Entry(key, "", None) for key in keys),
        count=len(keys),
        columns=columns,
        ahead=ahead,
    )


def read_columns(content: Path | bytes, source: str) -> pl.DataFrame:
    """Return what the list `source` says: `key`, `label`, perhaps `role` and `id`; the user's own
    columns are in `metadata`.

    `key`: the path of an image relative to the list's folder, distinct and inside of it. Raises
    SourceError as `list_file` does.
    """
    table = _read(content, source)
    _check_columns(table, source)
    keys = _clean_paths(table["path"], source)
    table = nest(_keep_types(table, source), TEXTS)
    return table.drop("path").insert_column(0, pl.Series("key", keys, pl.String))


def _read(content: Path | bytes, source: str) -> pl.DataFrame:
    texts = dict.fromkeys(TEXTS, pl.String)
    try:
        if source.lower().endswith(".parquet"):
            table = pl.read_parquet(content)
            texts_given = [name for name in TEXTS if name in table.columns]
            return table.with_columns(pl.col(texts_given).cast(pl.String))
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
    if not len(table):
        raise SourceError(f"{path} has no rows; list one image a row")


def _keep_types(table: pl.DataFrame, source: str) -> pl.DataFrame:
    """Return the columns in the types that are kept. Raises SourceError for one that is not."""
    kinds = {name: stored_type(kind) for name, kind in table.schema.items()}
    for name, kind in kinds.items():
        if kind is None:
            raise SourceError(
                f"{source}: column {name!r} is of type {table.schema[name]}, which is not kept; "
                "make it text, numbers, booleans, dates, times, or lists or structs of these"
            )
    return table.cast(kinds)  # type: ignore[arg-type]


def _clean_paths(paths: pl.Series, source: str) -> list[str]:
    """Return clean paths. Raises SourceError unless they are distinct and inside."""
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
