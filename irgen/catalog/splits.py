"""Draw roles if the source gives none: seeded, stratified by label, stable when images come."""

import hashlib

import numpy as np
import polars as pl


def assign_roles(
    table: pl.DataFrame, *, seed: int, query_fraction: float, validation_fraction: float
) -> pl.DataFrame:
    """Return `table` (path, label, role, sha256, revision …) with every role filled.

    An image without a role counts as train. If the source names no query, `query_fraction` of the
    train images of each label become queries, at least one of two; then, if it names no validation
    image, `validation_fraction` of the remaining train images become validation. At least one of
    each label stays train. Copies have one role, that of the first of them. Numbers of queries are
    rounded half up; those of validation images up or down by lot, a lot for each label, so that
    many labels of few images have some, too.

    Images of later revisions never move earlier ones, and images that come few at a time are drawn
    as well: a revision adds what the label's share grows by.

    >>> table = pl.DataFrame({"path": [f"a/{i}" for i in range(20)], "label": "a", "role": None,
    ...                       "revision": 1}, schema_overrides={"role": pl.String})
    >>> table = table.with_columns(sha256="path")
    >>> roles = assign_roles(table, seed=0, query_fraction=0.25, validation_fraction=0.2)["role"]
    >>> [(roles == role).sum() for role in ("query", "validation", "train")]
    [5, 3, 12]
    """
    named = set(table["role"].drop_nulls().unique())
    table = table.with_columns(pl.col("role").fill_null("train"))
    if "query" not in named:
        table = _take(table, "query", query_fraction, 1, seed)
    if "validation" not in named:
        table = _take(table, "validation", validation_fraction, 0, seed)
    return table


def choose_inserted(table: pl.DataFrame, *, seed: int, fraction: float) -> pl.Series:
    """Choose the images of `table` (role, label, sha256, revision …) that are searched and not
    trained on, as if they had been inserted after the training: (N,) bool.

    They are `fraction` of the contents of each label's train images first seen in one revision, in
    the order of sha256(seed, content), rounded half up; at least one is trained on. Copies go
    together, and images of later revisions never change what earlier ones are.

    >>> table = pl.DataFrame({"sha256": list("abcd"), "label": "x", "role": "train",
    ...                       "revision": 1})
    >>> [sum(choose_inserted(table, seed=0, fraction=share)) for share in (0.75, 0.0)]
    [3, 0]
    """
    if not fraction:
        return pl.repeat(False, len(table), dtype=pl.Boolean, eager=True)
    group = ("role", "label", "revision")
    count = pl.col("draw").n_unique().over(group)
    quota = pl.min_horizontal((count * fraction + 0.5).floor(), count - 1)
    chosen = (pl.col("role") == "train") & (pl.col("draw").rank("dense").over(group) <= quota)
    return table.with_columns(draw=_draw(seed, table["sha256"])).select(chosen).to_series()


def choose_inserted_labels(table: pl.DataFrame, *, seed: int, fraction: float) -> pl.Series:
    """Choose the images of `table` (role, label …) whose whole label is searched and not trained
    on, as if it had been inserted after the training: (N,) bool, false for queries.

    They are `fraction` of the labels of train images, in the order of sha256(seed, label), rounded
    half up; one at least and never all. Labels that come later change which ones are drawn.

    >>> table = pl.DataFrame({"label": list("aabc"), "role": ["train", "query", "train", "train"]})
    >>> [sum(choose_inserted_labels(table, seed=1, fraction=share)) for share in (0.4, 0.0)]
    [1, 0]
    """
    if not fraction:
        return pl.repeat(False, len(table), dtype=pl.Boolean, eager=True)
    taught = table.filter(role="train").select("label").drop_nulls().unique()
    count = min(max(1, int(len(taught) * fraction + 0.5)), len(taught) - 1)
    drawn = taught.with_columns(draw=_draw(seed, taught["label"])).sort("draw")["label"]
    chosen = pl.col("label").is_in(drawn.head(count).implode()) & (pl.col("role") != "query")
    return table.select(chosen.fill_null(False)).to_series()


def _take(table: pl.DataFrame, role: str, fraction: float, least: int, seed: int) -> pl.DataFrame:
    """Give `role` to `fraction` of each label's distinct train images, in the order of revisions
    and, within one, of sha256(seed, path); to `least` if there are enough."""
    if not fraction:
        return table
    is_train, label = pl.col("role") == "train", pl.col("label")
    images = table.filter(is_train).sort("revision", "path")
    images = images.unique("sha256", keep="first", maintain_order=True)  # the first of the copies
    images = images.with_columns(draw=_draw(seed, images["path"]), lot=_draw(seed, images["label"]))
    earlier = pl.col("revision").rank("min").over(label) - 1  # images of earlier revisions
    new = pl.len().over(label, "revision")
    quota = _share(earlier + new, fraction, least) - _share(earlier, fraction, least)
    rank = pl.col("draw").rank("ordinal").over(label, "revision")  # 1 …
    chosen = is_train & pl.col("sha256").is_in(images.filter(rank <= quota)["sha256"].implode())
    return table.with_columns(pl.when(chosen).then(pl.lit(role)).otherwise("role").alias("role"))


def _share(count: pl.Expr, fraction: float, least: int) -> pl.Expr:
    """Return how many of a label's `count` images are taken: `fraction`, rounded, no fewer than
    `least`, and never all. With another image it grows by one at most."""
    rounding = pl.lit(0.5) if least else pl.col("lot")
    share = pl.max_horizontal((count * fraction + rounding).floor(), pl.lit(float(least)))
    return pl.max_horizontal(pl.min_horizontal(share, count.cast(pl.Float64) - 1), pl.lit(0.0))


def _draw(seed: int, texts: pl.Series) -> pl.Series:
    """Return numbers in [0, 1) that follow from `seed` and the texts alone."""
    digests = (hashlib.sha256(f"{seed}:{text}".encode()).digest() for text in texts)
    numbers = (int.from_bytes(digest[:6], "big") / 2**48 for digest in digests)
    return pl.Series(np.fromiter(numbers, np.float64, len(texts)))
