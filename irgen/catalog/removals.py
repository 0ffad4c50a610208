"""Decide whether an update may take images away, or has to ask a person first.

A source that lacks many images is more often away, in part, than tidied up.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import polars as pl

from irgen.catalog import manifest
from irgen.catalog.assembly import lacks_label
from irgen.catalog.datasets.annotations import drop_annotations
from irgen.catalog.formats import SETS, choose_format, read_format
from irgen.errors import ArtifactError, CatalogError

FEWEST = 5  # fewer images may always go
LABEL_SHARE = 0.002  # of all images; the loss of a label with fewer may be everyday work…
LABEL_IMAGES = 100  # …unless it had as many as this
EXAMPLES = 5
GROUPS = ("label", "role")  # none of whose images may all go unnoticed

ReadBytes = Callable[[str], bytes]


@dataclass(frozen=True, kw_only=True)
class Removals:
    """Images that an update would take away and has to ask about.

    `images`: columns key, sha256, label, role. `before`: number of images there now. `peak`: most
    images since a person last accepted removals. `labels`, `roles`: that would lose their last
    image.
    """

    images: pl.DataFrame
    before: int
    peak: int
    labels: tuple[str, ...]
    roles: tuple[str, ...]

    def summarize(self) -> dict[str, Any]:
        """Return the counts and some examples, as JSON can hold them."""
        by_label = self.images["label"].drop_nulls().value_counts(sort=True)
        return {
            "gone": len(self.images),
            "before": self.before,
            "peak": self.peak,
            "by_label": dict(by_label.sort("count", "label", descending=[True, False]).iter_rows()),
            "whole_labels": list(self.labels),
            "whole_roles": list(self.roles),
            "examples": self.images["key"]
            .sort()
            .gather_every(_step(self.images))[:EXAMPLES]
            .to_list(),
        }


def _step(images: pl.DataFrame) -> int:
    return max(1, len(images) // EXAMPLES)


def label_images(
    table: pl.DataFrame, format_name: str, read: ReadBytes, last: pl.DataFrame | None = None
) -> pl.DataFrame:
    """Return the images of a manifest, without annotation files, with the `label` and `role` that
    the source gives them: null if it gives none. If the source does not fit its format, they have
    label and role of the `last` images with the same keys; the stage catalog will report it."""
    images = drop_annotations(manifest.images(table)).drop("label", "role", strict=False)
    try:
        catalog = read_format(table, choose_format(table, format_name), read)
    except (ArtifactError, CatalogError):  # its lists are damaged, or name what has gone
        if last is not None:
            return images.join(last.select("key", *GROUPS), on="key", how="left")
        return images.with_columns(pl.lit(None, pl.String).alias(name) for name in GROUPS)
    label = pl.when(~lacks_label()).then(pl.col("label"))
    return images.join(catalog.select(key="path", label=label, role="role"), on="key", how="left")


def label_past(past: pl.DataFrame, old: pl.DataFrame, format_name: str) -> pl.DataFrame:
    """Return past images of the manifest `old` with their labels. Those of a published set have
    none, since its lists name present images only."""
    try:
        name = choose_format(old, format_name)
    except CatalogError:
        name = "images"
    return label_images(past, "images" if name in SETS else name, lambda sha256: b"")


def has_removals(old: pl.DataFrame, new: pl.DataFrame) -> bool:
    """Tell whether any image of the manifest `old` is gone from `new`, changed, or has another
    label. This is cheap, and spares most updates the labels of all images."""
    same = ["key", "sha256", *(["label"] if {"label"} <= {*old.columns} & {*new.columns} else [])]
    gone = manifest.images(old).join(new, on=same, how="anti", nulls_equal=True)
    return len(gone) > 0


def find_removals(old: pl.DataFrame, new: pl.DataFrame) -> pl.DataFrame:
    """Return the images of `old` whose content is gone from `new`: columns key, sha256, label,
    role.

    An image under another key has moved and is not gone. An image with other content has changed
    and is not gone, unless others became the same picture: a placeholder. An image without its
    label counts as gone. Both tables have columns key, sha256, label, role.
    """
    moved = new.join(old, on="key", how="anti")["sha256"]
    both = old.join(new, on="key", suffix="_new")
    changed = both.filter(pl.col("sha256") != pl.col("sha256_new"))
    placeholders = changed.filter(pl.col("sha256_new").is_duplicated())["key"]
    unlabelled = both.filter(pl.col("label").is_not_null(), pl.col("label_new").is_null())["key"]
    lost = [*placeholders, *unlabelled]
    kept = pl.col("key").is_in(both["key"].implode()) & ~pl.col("key").is_in(lost)
    gone = old.filter(~kept & ~pl.col("sha256").is_in(moved.implode()))
    return gone.select("key", "sha256", *GROUPS)


def find_objection(
    gone: pl.DataFrame,
    old: pl.DataFrame,
    new: pl.DataFrame,
    history: pl.DataFrame,
    *,
    since: int,
    share: float,
) -> Removals | None:
    """Return the removals to ask about; None if `gone` may go without a word.

    To ask about: more than `share` of the images in `old`; a catalogue that is smaller by more than
    `share` than it was at its peak; the last image of a label or role that was not small. Fewer
    than FEWEST images never matter. `history` and `since`: as for `count_peaks`.
    """
    if not len(gone):
        return None
    whole = history.with_columns(all=pl.lit("all"))
    peak = max(len(old), *count_peaks(whole, "all", since)["images"])
    shrunk = peak - len(new)
    labels, roles = (
        _find_lost(group, gone, old, new, count_peaks(history, group, since), peak)
        for group in GROUPS
    )
    too_many = len(gone) >= FEWEST and len(gone) > share * len(old)
    too_few_left = shrunk >= FEWEST and shrunk > share * peak
    if not (too_many or too_few_left or labels or roles):
        return None
    return Removals(images=gone, before=len(old), peak=peak, labels=labels, roles=roles)


def _find_lost(
    group: str,
    gone: pl.DataFrame,
    old: pl.DataFrame,
    new: pl.DataFrame,
    peaks: pl.DataFrame,
    total: int,
) -> tuple[str, ...]:
    """Return the labels or roles (`group`), not small ones, whose last image would go."""
    left = old.join(gone, on="key", how="anti")[group]
    least = min(max(FEWEST, LABEL_SHARE * total), LABEL_IMAGES)
    large = peaks.filter(pl.col("images") >= least)[group]
    lost = set(gone[group]) & set(large) - set(left) - set(new[group])
    return tuple(sorted(lost))


def count_peaks(images: pl.DataFrame, group: str, since: int) -> pl.DataFrame:
    """Return the largest number of images of each `group` (a column's value; null is left out) at
    any revision from `since` on: columns `group`, images.

    `images`: present and past ones, with columns revision and gone (null while it is there).

    >>> columns = {"label": ["a", "a", "b"], "revision": [1, 1, 3], "gone": [2, None, None]}
    >>> count_peaks(pl.DataFrame(columns), "label", 0).rows()
    [('a', 2), ('b', 1)]
    >>> count_peaks(pl.DataFrame(columns), "label", 2).rows()
    [('a', 1), ('b', 1)]
    """
    comes = images.select(group, at="revision", change=pl.lit(1))
    goes = images.filter(pl.col("gone").is_not_null())
    goes = goes.select(group, at="gone", change=pl.lit(-1))
    events = pl.concat([comes, goes]).with_columns(pl.col("at").clip(lower_bound=since))
    steps = events.filter(pl.col(group).is_not_null()).group_by(group, "at")
    counts = steps.agg(pl.col("change").sum()).sort("at")
    counts = counts.with_columns(images=pl.col("change").cum_sum().over(group))
    return counts.group_by(group).agg(pl.col("images").max()).sort(group)
