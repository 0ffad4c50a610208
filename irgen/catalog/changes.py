"""Compare two manifests of a source: what is new, changed, gone or relabelled."""

from dataclasses import dataclass

import polars as pl

from irgen.catalog import manifest
from irgen.catalog.columns import flatten
from irgen.catalog.datasets.annotations import has_annotation_key


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


def set_revisions(new: pl.DataFrame, old: pl.DataFrame | None, revision: int) -> pl.DataFrame:
    """Give each image its revision: that of `old` if it is unchanged, else the next one.

    `old` None: another catalogue, at its first revision.
    """
    unseen = pl.when(pl.col("sha256").is_null()).then(0).otherwise(revision + 1)
    if old is None:
        return new.with_columns(unseen.cast(pl.Int32).alias("revision"))
    same = _identity(old, new)
    seen = manifest.images(old).select(*same, seen="revision")
    keys = new.select(same)  # a join of all columns would copy them
    joined = keys.join(seen, on=same, how="left", nulls_equal=True, maintain_order="left")
    revisions = pl.coalesce("seen", unseen).cast(pl.Int32).alias("revision")
    return new.with_columns(joined["seen"]).with_columns(revisions).drop("seen")


def find_gone(old: pl.DataFrame, new: pl.DataFrame, revision: int) -> pl.DataFrame:
    """Return the images of `old` that are missing or changed in `new`, gone since `revision`."""
    gone = manifest.images(old).join(new, on=_identity(old, new), how="anti", nulls_equal=True)
    columns = [name for name in (*manifest.SCHEMA, *manifest.IDENTITY) if name in gone.columns]
    return gone.select(*columns, pl.lit(revision, pl.Int32).alias(manifest.GONE))


def _identity(old: pl.DataFrame, new: pl.DataFrame) -> list[str]:
    """Return the columns in which an unchanged image agrees in both tables."""
    both = [n for n in manifest.IDENTITY if n in new.columns and old.schema.get(n) == new.schema[n]]
    return ["key", "sha256", *both]


def count_relabelled(old: pl.DataFrame, new: pl.DataFrame) -> int:
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
        changed |= _mark_different(*(t.get_column(name, default=empty) for t in (before, after)))
    return int(changed.sum())


def _mark_different(before: pl.Series, after: pl.Series) -> pl.Series:
    """Return where two columns differ (n,) bool."""
    try:
        return before.ne_missing(after)
    except pl.exceptions.PolarsError:  # values of such types are never equal
        return before.is_not_null() | after.is_not_null()


def compare(old: pl.DataFrame | None, new: pl.DataFrame, relabelled: int, revision: int) -> Change:
    """Return what differs between the manifests `old`, at `revision`, and `new`. `old` None:
    another catalogue. `relabelled`: as `count_relabelled` returns it."""
    before = manifest.images(new.clear() if old is None else old).select("key", before="sha256")
    after = manifest.images(new).select("key", after="sha256")
    both = before.join(after, on="key", how="full", coalesce=True)
    images, annotations = both.filter(~has_annotation_key()), both.filter(has_annotation_key())
    differs = pl.col("before").ne_missing(pl.col("after"))
    new_count, gone = images["before"].null_count(), images["after"].null_count()
    changed = len(images.filter(differs)) - new_count - gone
    relabelled = 0 if old is None else relabelled + len(annotations.filter(differs))
    return Change(
        images=len(images) - gone,
        new=new_count,
        changed=changed,
        gone=gone,
        relabelled=relabelled,
        revision=revision + bool(new_count or changed or gone or relabelled),
        unreadable=len(manifest.unreadable(new)),
    )
