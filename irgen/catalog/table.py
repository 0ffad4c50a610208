"""The catalogue table: one schema for every source, checked whenever one is read or written."""

from pathlib import Path

import numpy as np
import polars as pl

from irgen.errors import ArtifactError
from irgen.files import atomic

NAMES = ("train", "validation", "database", "queries")
ROLES = ("train", "validation", "query")
SCHEMA = pl.Schema(
    {
        "id": pl.String,  # stable and distinct
        "path": pl.String,  # the image's key in the manifest
        "label": pl.String,  # null: the source gives none
        "role": pl.String,
        "sha256": pl.String,
        "width": pl.Int32,  # pixels, upright
        "height": pl.Int32,
    }
)


def check_table(table: pl.DataFrame, where: str) -> pl.DataFrame:
    """``table`` itself; raises ArtifactError, naming ``where``, unless it has the columns of
    ``SCHEMA`` (others may follow) without nulls but in labels, known roles, and distinct ids in
    order."""
    for name, kind in SCHEMA.items():
        found = table.schema.get(name)
        if found != kind:
            raise ArtifactError(f"{where}: column {name!r} should be {kind}, found {found}")
        if name != "label" and table[name].null_count():
            raise ArtifactError(f"{where}: column {name!r} has empty values")
    unknown = set(table["role"].unique()) - set(ROLES)
    if unknown:
        raise ArtifactError(f"{where}: unknown role {min(unknown)!r}; known: {', '.join(ROLES)}")
    if not table["id"].is_sorted() or table["id"].is_duplicated().any():
        raise ArtifactError(f"{where}: ids are not distinct and in order")
    return table


def write_table(path: Path, table: pl.DataFrame) -> None:
    """Writes a checked table, whole or not at all; equal tables give equal files."""
    check_table(table, path.name)
    with atomic(path) as temporary:
        table.rechunk().write_parquet(temporary)


def read_table(path: Path) -> pl.DataFrame:
    """The table at ``path``, rows sorted by id. Raises ArtifactError if missing, damaged or not a
    catalogue table."""
    try:
        table = pl.read_parquet(path)
    except FileNotFoundError:
        raise ArtifactError(
            f"{path} is missing: run the catalog stage (dvc repro catalog)"
        ) from None
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ArtifactError(f"{path} is damaged ({reason}): run the catalog stage again") from None
    return check_table(table, str(path))


def mark_unchanged(table: pl.DataFrame, other: pl.DataFrame) -> np.ndarray:
    """Which images of ``table`` (N,) bool are in ``other`` under their id with the content they
    have.

    >>> now = pl.DataFrame({"id": ["a", "b", "c"], "sha256": ["1", "2", "3"]})
    >>> mark_unchanged(now, pl.DataFrame({"id": ["b", "c"], "sha256": ["other", "3"]})).tolist()
    [False, False, True]
    """
    same = ["id", "sha256"]
    known = other.select(*same, known=pl.lit(True)).unique(same)
    found = table.join(known, on=same, how="left", maintain_order="left")["known"]
    return found.fill_null(False).to_numpy()


def label_counts(table: pl.DataFrame) -> pl.DataFrame:
    """Columns label and count (i64), one row a label, sorted by label; images without one are not
    counted.

    >>> label_counts(pl.DataFrame({"label": ["b", "a", "b"]})).rows()
    [('a', 1), ('b', 2)]
    """
    counts = table.group_by("label").agg(pl.len().cast(pl.Int64).alias("count"))
    return counts.drop_nulls("label").sort("label")
