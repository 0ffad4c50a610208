"""A CSV or Parquet list of images as a source: path, label, and perhaps role, id and metadata."""

from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl

from irgen.catalog.column_types import convert
from irgen.catalog.columns import nest, stored_type
from irgen.catalog.sources.list_paths import find_files, find_scheme
from irgen.catalog.sources.list_text import NAMES, clean_names, decode_list, read_texts
from irgen.catalog.sources.listing import Entry, Listing, check_key, refuse
from irgen.errors import SourceError

PARQUET = ".parquet"
ENDINGS = (".csv", ".tsv", ".txt", PARQUET)

FindPaths = Callable[[Sequence[str]], tuple[list[Entry], tuple[str, ...]]]
FindAddresses = Callable[[Sequence[str]], list[Entry]]


def refuse_addresses(texts: Sequence[str]) -> list[Entry]:
    """Return entries that say that addresses are not read."""
    return [refuse(text, "addresses are not read here") for text in texts]


def list_file(
    path: Path,
    find_addresses: FindAddresses = refuse_addresses,
    ahead: int = 0,
    outside: bool = False,
) -> Listing:
    """List the images that a local list names, by path relative to the list's folder or by address.

    `find_addresses` finds the images at addresses, which `ahead` threads read. `outside`: also read
    files outside of the folder. Raises SourceError as `list_rows` does.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SourceError(f"{path} cannot be read as a list: {error.strerror}") from None

    def find_paths(texts: Sequence[str]) -> tuple[list[Entry], tuple[str, ...]]:
        return find_files(texts, path.parent, outside)

    return list_rows(content, str(path), find_paths, find_addresses, ahead)


def list_rows(
    content: bytes, source: str, find_paths: FindPaths, find_addresses: FindAddresses, ahead: int
) -> Listing:
    """List the images that the list `source` with this content names: `find_paths` finds those at
    paths, `find_addresses` those at addresses.

    An image that is not there stays listed, to be rejected with a reason. Raises SourceError if the
    list is damaged, lacks `path` or `label`, says two things of one image, has a column of a type
    that cannot be kept, or if none of its images is there.
    """
    table, notes = _read_table(content, source)
    entries, more = _find_entries(table["path"].to_list(), find_paths, find_addresses)
    if all(entry.read is None and entry.problem is None for entry in entries):
        raise SourceError(
            f"{source}: none of the {len(entries):,} images it names is there, e.g. "
            f"{entries[0].key}; paths count from the list's folder"
        )
    keys = [check_key(entry.key, source) for entry in entries]
    rows = _find_distinct(keys, table.drop("path"), source)
    columns = nest(_keep_types(table, source), NAMES).drop("path")
    repeated = f"rows that repeat another one: {len(keys) - len(rows):,}"
    return Listing(
        entries=sorted((entries[row] for row in rows), key=lambda entry: entry.key),
        count=len(rows),
        columns=columns.insert_column(0, pl.Series("key", keys, pl.String))[rows],
        ahead=ahead,
        is_text=not source.lower().endswith(PARQUET),
        notes=(*notes, *more, *([repeated] if len(rows) < len(keys) else [])),
    )


def _find_entries(
    texts: Sequence[str], find_paths: FindPaths, find_addresses: FindAddresses
) -> tuple[list[Entry], tuple[str, ...]]:
    """Return the entry of each row, and notes."""
    is_far = [find_scheme(text) not in ("", "file") for text in texts]
    entries, notes = find_paths(
        [text for text, away in zip(texts, is_far, strict=True) if not away]
    )
    addressed = find_addresses([text for text, away in zip(texts, is_far, strict=True) if away])
    sides = {False: iter(entries), True: iter(addressed)}
    return [next(sides[away]) for away in is_far], notes


def _find_distinct(keys: Sequence[str], table: pl.DataFrame, source: str) -> list[int]:
    """Return the first row of each key. Raises SourceError for rows that say two things of it."""
    first: dict[str, int] = {}
    for row, key in enumerate(keys):
        if first.setdefault(key, row) != row and table.row(row) != table.row(first[key]):
            raise SourceError(
                f"{source}: row {row + 1} names {key} a second time, with other values than row "
                f"{first[key] + 1}; name each image once"
            )
    return list(first.values())


def _read_table(content: bytes, source: str) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """Return the rows that have a path, and notes. Raises SourceError."""
    table, notes = _read(content, source)
    _check_columns(table, source)
    has_path = pl.col("path").fill_null("").str.strip_chars() != ""
    without = table.filter(~has_path)
    blank = without.select(pl.all_horizontal(pl.all().is_null())).to_series().sum()
    table = table.filter(has_path)
    if not len(table):
        raise SourceError(f"{source} has no rows with a path; list one image a row")
    if len(without) > blank:
        notes += (f"rows without a path, which are left out: {len(without) - blank:,}",)
    return table, notes


def _read(content: bytes, source: str) -> tuple[pl.DataFrame, tuple[str, ...]]:
    try:
        if not source.lower().endswith(PARQUET):
            text = decode_list(content, source)
            return read_texts(text, source), text.notes
        table = pl.read_parquet(content)
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise SourceError(f"{source} cannot be read as a list: {reason}") from None
    table = table.rename(dict(zip(table.columns, clean_names(table.columns), strict=True)))
    return table.with_columns(
        _to_text(table[name], source) for name in NAMES if name in table.columns
    ), ()


def _to_text(values: pl.Series, source: str) -> pl.Series:
    """Return a column of ours as text. Raises SourceError if it has values that are none."""
    texts, others = convert(values, pl.String())
    if len(others):
        raise SourceError(
            f"{source}: column {values.name!r} is of type {values.dtype}; make it text or numbers"
        )
    return texts


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
