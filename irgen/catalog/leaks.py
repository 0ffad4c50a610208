"""Find leaks: queries whose images were also trained on."""

from collections.abc import Callable, Mapping

import numpy as np
import polars as pl

from irgen.catalog.fingerprints import ALIKE, find_near

KINDS = {
    "same_file": "the same file",
    "near_image": "nearly the same picture",
    "shared_label": "a label of both sides",
}
SCHEMA = pl.Schema(
    {
        "kind": pl.String,
        "query": pl.String,  # ids
        "image": pl.String,  # a training or validation image
        "same_label": pl.Boolean,
        "bits": pl.Int64,  # of 128 that the two fingerprints differ in
    }
)
PAIRS = {"row": pl.Int64, "other": pl.Int64, "bits": pl.Int64}
LOOKED_AT = 5  # candidates a query whose pixels are compared


def find_leaks(
    tables: Mapping[str, pl.DataFrame],
    fingerprints: pl.DataFrame,
    thumbnail: Callable[[str], np.ndarray],
    disjoint: bool,
) -> pl.DataFrame:
    """Return the leaks of a catalogue: columns of SCHEMA, sorted.

    `same_file`: a query with the content of a training or validation image. `near_image`: a query
    that looks the same as such an image. Each query is named once a kind, with the nearest image.
    `shared_label`, if labels have to be `disjoint`: a label of both sides, once, with its first
    query and image. A query that can be found is no leak: it never counts itself or its copies.

    `tables`: the catalogue's; `fingerprints`: sha256, across, down (UInt64); `thumbnail` returns
    the vector of an image by its hash. Fingerprints propose near copies, thumbnails that correlate
    by ALIKE confirm them. Cropped, turned or mirrored copies are not found.
    """
    queries, trained = tables["queries"], _list_trained(tables)
    leaks = [
        _same_files(queries, trained),
        _near_images(queries, trained, fingerprints, thumbnail),
    ]
    if disjoint:
        leaks.append(_shared_labels(queries, trained))
    return pl.concat(leaks).sort("kind", "query", "image")


def count_leaks(leaks: pl.DataFrame) -> dict[str, int]:
    """Count the queries of each kind of leak; of `shared_label`, the labels."""
    return {kind: int((leaks["kind"] == kind).sum()) for kind in KINDS}


def format_leaks(counts: Mapping[str, int]) -> str:
    """Describe the counts by kind in words.

    >>> format_leaks({"same_file": 2, "near_image": 0, "shared_label": 1})
    'the same file (2), a label of both sides (1)'
    """
    parts = [f"{KINDS[kind]} ({n:,})" for kind, n in counts.items() if n]
    return ", ".join(parts) or "none found"


def _list_trained(tables: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """Return the images to compare queries with (id, sha256, label), sorted by id."""
    parts = [tables[name].select("id", "sha256", "label") for name in ("train", "validation")]
    return pl.concat(parts).sort("id")


def _rows(pairs: pl.DataFrame, kind: str) -> pl.DataFrame:
    """Return pairs (query, label, image, label_right, bits) as SCHEMA rows."""
    same = pl.col("label") == pl.col("label_right")
    return pairs.with_columns(kind=pl.lit(kind), same_label=same).select(
        pl.col(name).cast(form) for name, form in SCHEMA.items()
    )


def _same_files(queries: pl.DataFrame, trained: pl.DataFrame) -> pl.DataFrame:
    first_copies = trained.unique("sha256", keep="first", maintain_order=True)
    pairs = queries.select("sha256", "label", query="id").join(
        first_copies.rename({"id": "image"}), on="sha256"
    )
    return _rows(pairs.with_columns(bits=0), "same_file")


def _near_images(
    queries: pl.DataFrame,
    trained: pl.DataFrame,
    fingerprints: pl.DataFrame,
    thumbnail: Callable[[str], np.ndarray],
) -> pl.DataFrame:
    once = trained.unique("sha256", keep="first", maintain_order=True)
    left, right = (
        table.join(fingerprints, on="sha256", how="left", maintain_order="left")
        for table in (queries.select("id", "sha256", "label"), once)
    )
    halves = [
        table.select("across", "down").to_numpy().astype(np.uint64) for table in (left, right)
    ]
    rows = pl.DataFrame(find_near(*halves), schema=PAIRS, orient="row")
    left, right = left.with_row_index("row"), right.with_row_index("other")
    pairs = (
        rows.join(left.cast({"row": pl.Int64}).rename({"id": "query"}), on="row")
        .join(right.cast({"other": pl.Int64}).rename({"id": "image"}), on="other")
        .filter(pl.col("sha256") != pl.col("sha256_right"))
        .sort("query", "bits", "image")
        .group_by("query", maintain_order=True)
        .head(LOOKED_AT)
    )
    alike = [
        float(thumbnail(a) @ thumbnail(b)) >= ALIKE
        for a, b in pairs.select("sha256", "sha256_right").iter_rows()
    ]
    pairs = pairs.filter(pl.Series(alike, dtype=pl.Boolean))
    return _rows(pairs.unique("query", keep="first", maintain_order=True), "near_image")


def _shared_labels(queries: pl.DataFrame, trained: pl.DataFrame) -> pl.DataFrame:
    first_queries = queries.sort("id").unique("label", keep="first", maintain_order=True)
    first_trained = trained.unique("label", keep="first", maintain_order=True)
    pairs = first_queries.select("label", query="id").join(
        first_trained.rename({"id": "image"}).with_columns(label_right="label"), on="label"
    )
    return _rows(pairs.with_columns(bits=pl.lit(None, pl.Int64)), "shared_label")
