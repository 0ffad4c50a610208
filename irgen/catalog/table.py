"""Catalogue table: one schema for every source, checked on every read and write."""

from pathlib import Path

import numpy as np
import polars as pl

from irgen.catalog.columns import flatten, nest
from irgen.errors import ArtifactError
from irgen.files.sealed import read_parquet, write_parquet

NAMES = ("train", "validation", "database", "queries")
TEXTS = "texts.parquet"  # texts of the images that are trained on: `texts.collect_texts`
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
    """Return `table`. Raises ArtifactError, naming `where`, unless it has the columns of SCHEMA
    (`metadata` may follow), without nulls but in labels, known roles, and distinct ids in order."""
    for name, kind in SCHEMA.items():
        actual = table.schema.get(name)
        if actual != kind:
            raise ArtifactError(f"{where}: column {name!r} should be {kind}, found {actual}")
        if name != "label" and table[name].null_count():
            raise ArtifactError(f"{where}: column {name!r} has empty values")
    unknown = set(table["role"].unique()) - set(ROLES)
    if unknown:
        raise ArtifactError(f"{where}: unknown role {min(unknown)!r}; known: {', '.join(ROLES)}")
    if not table["id"].is_sorted() or table["id"].is_duplicated().any():
        raise ArtifactError(f"{where}: ids are not distinct and in order")
    return table


def write_table(path: Path, table: pl.DataFrame) -> None:
    """Check and write a table, whole or not at all; equal tables give equal files. The user's
    columns become plain ones."""
    check_table(table, path.name)
    write_parquet(path, flatten(table, SCHEMA.names()))


def read_table(path: Path) -> pl.DataFrame:
    """Return the table at `path`, sorted by id, the user's columns in `metadata`. Raises
    ArtifactError if it is missing, damaged or no catalogue table."""
    return nest(check_table(read_parquet(path), str(path)), SCHEMA.names())


def mark_unchanged(table: pl.DataFrame, other: pl.DataFrame) -> np.ndarray:
    """Tell which images of `table` are in `other` with the same id and content: (N,) bool.

    >>> now = pl.DataFrame({"id": ["a", "b", "c"], "sha256": ["1", "2", "3"]})
    >>> mark_unchanged(now, pl.DataFrame({"id": ["b", "c"], "sha256": ["other", "3"]})).tolist()
    [False, False, True]
    """
    same = ["id", "sha256"]
    both = other.select(*same, both=pl.lit(True)).unique(same)
    marks = table.join(both, on=same, how="left", maintain_order="left")["both"]
    return marks.fill_null(False).to_numpy()


def describe_counts(images: int, queries: int, *, searched: bool) -> str:
    """Say how many images can be found, and how many of them, if queries are `searched`, measure.

    >>> describe_counts(1797, 359, searched=True)
    '1,797 images can be found; 359 of them measure quality and are not trained on'
    >>> describe_counts(1438, 359, searched=False)
    '1,438 images can be found; 359 others measure quality and are not trained on'
    """
    measuring = f"{queries:,} of them" if searched else f"{queries:,} others"
    return f"{images:,} images can be found; {measuring} measure quality and are not trained on"


def describe_tables(database: pl.DataFrame, queries: pl.DataFrame) -> str:
    """Say of a catalogue's tables what `describe_counts` does."""
    searched = "query" in database["role"]
    return describe_counts(len(database), len(queries), searched=searched)


def describe_similar_labels(table: pl.DataFrame, shown: int = 3) -> str:
    """Name the labels that differ in case, blanks, dashes or underlines alone; "" if none do.

    >>> describe_similar_labels(pl.DataFrame({"label": ["T-Shirt", "t shirt", "hat", None]}))
    "1 group of labels differs in case, blanks or dashes alone: 'T-Shirt' (1) and 't shirt' (1)"
    """
    plain = pl.col("label").str.normalize("NFKC").str.to_lowercase()
    groups = label_counts(table).group_by(
        plain.str.replace_all(r"[\s_\p{Pd}]+", " ").str.strip_chars().alias("plain"),
        maintain_order=True,
    )
    alike = groups.agg("label", "count").filter(pl.col("label").list.len() > 1)
    if not len(alike):
        return ""
    examples = (
        " and ".join(f"{label!r} ({count:,})" for label, count in zip(labels, counts, strict=True))
        for _, labels, counts in alike.head(shown).iter_rows()
    )
    many = f"{len(alike):,} groups of labels differ"
    groups_differ = "1 group of labels differs" if len(alike) == 1 else many
    more = "; …" if len(alike) > shown else ""
    return f"{groups_differ} in case, blanks or dashes alone: {'; '.join(examples)}{more}"


def label_counts(table: pl.DataFrame) -> pl.DataFrame:
    """Return columns label and count (i64), sorted by label; images without a label do not count.

    >>> label_counts(pl.DataFrame({"label": ["b", "a", "b"]})).rows()
    [('a', 1), ('b', 2)]
    """
    counts = table.group_by("label").agg(pl.len().cast(pl.Int64).alias("count"))
    return counts.drop_nulls("label").sort("label")
