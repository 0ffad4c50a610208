"""Draw roles where the source gives none: seeded, stratified by label, unmoved by new images."""

import hashlib

import polars as pl

from irgen.catalog.manifest import GONE


def assign_roles(
    table: pl.DataFrame,
    *,
    seed: int,
    query_fraction: float,
    validation_fraction: float,
    trained_until: int | None = None,
) -> pl.DataFrame:
    """Return `table` (path, label, role, revision …) with every role filled.

    An image without a role counts as train. If the source names no query, `query_fraction` of the
    train images of each label become queries; then, if it names no validation image,
    `validation_fraction` of the remaining train images become validation. Fractions are of the
    images of one label first seen in one revision, in the order of sha256(seed, path), rounded half
    up; at least one stays train. So images of later revisions never move earlier ones.

    `trained_until`: the training revision; `table` then has `sha256` and `gone`, null for what is
    there. An image whose content was trained on under another path or label is no query.

    >>> table = pl.DataFrame({"path": [f"a/{i}" for i in range(20)], "label": "a", "role": None,
    ...                       "revision": 1}, schema_overrides={"role": pl.String})
    >>> roles = assign_roles(table, seed=0, query_fraction=0.25, validation_fraction=0.2)["role"]
    >>> [(roles == role).sum() for role in ("query", "validation", "train")]
    [5, 3, 12]
    """
    named = set(table["role"].drop_nulls().unique())
    table = table.with_columns(pl.col("role").fill_null("train"))
    if "query" not in named:
        table = _take(table, "query", query_fraction, seed)
        table = table if trained_until is None else _keep_trained(table, trained_until)
    if "validation" not in named:
        table = _take(table, "validation", validation_fraction, seed)
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
    draw = [hashlib.sha256(f"{seed}:{sha256}".encode()).hexdigest() for sha256 in table["sha256"]]
    count = pl.col("draw").n_unique().over(group)
    quota = pl.min_horizontal((count * fraction + 0.5).floor(), count - 1)
    chosen = (pl.col("role") == "train") & (pl.col("draw").rank("dense").over(group) <= quota)
    return table.with_columns(pl.Series("draw", draw, pl.String)).select(chosen).to_series()


def _take(table: pl.DataFrame, role: str, fraction: float, seed: int) -> pl.DataFrame:
    """Give `role` to the first `fraction` of each label's and revision's train images."""
    group = ("role", "label", "revision")
    draw = [hashlib.sha256(f"{seed}:{path}".encode()).hexdigest() for path in table["path"]]
    rank = pl.col("draw").rank("ordinal").over(group)  # 1 …
    count = pl.len().over(group)
    quota = pl.min_horizontal((count * fraction + 0.5).floor(), count - 1)
    chosen = (pl.col("role") == "train") & (rank <= quota)
    return (
        table.with_columns(pl.Series("draw", draw, pl.String))
        .with_columns(pl.when(chosen).then(pl.lit(role)).otherwise(pl.col("role")).alias("role"))
        .drop("draw")
    )


def _keep_trained(table: pl.DataFrame, trained_until: int) -> pl.DataFrame:
    """Give `train` back to queries whose content a train image had that has gone since."""
    gone = pl.col(GONE).is_not_null()
    trained = gone & (pl.col("role") == "train") & (pl.col("revision") <= trained_until)
    contents = table.filter(trained)["sha256"].implode()
    again = ~gone & (pl.col("role") == "query") & pl.col("sha256").is_in(contents)
    return table.with_columns(
        pl.when(again).then(pl.lit("train")).otherwise(pl.col("role")).alias("role")
    )
