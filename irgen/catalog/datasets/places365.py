"""Places365-Standard (Zhou et al., TPAMI 2017), in its folders of 256 px or of large images."""

from collections.abc import Mapping

import polars as pl

from irgen.catalog.datasets.annotations import (
    LISTED,
    Published,
    get_file,
    match_images,
    parse_rows,
)
from irgen.errors import CatalogError

PLACES365 = Published(
    title="Places365",
    files="put train_256_places365standard.tar (data_256_standard/ or data_256/), val_256.tar "
    "(val_256/), both unpacked, and the lists of filelist_places365-standard.tar into the source: "
    "places2.csail.mit.edu/download.html gives them after its terms are accepted",
    images={"train": 1_803_460, "val": 36_500},
    labels=365,
)
CLASSES = "categories_places365.txt"


def read(images: pl.DataFrame, files: Mapping[str, bytes]) -> pl.DataFrame:
    """Read labels, categories (airfield, apartment_building/outdoor …), and parts train and val.

    Every list has lines `name number`: `/a/airfield/00000001.jpg 0` in
    `places365_train_standard.txt`, `Places365_val_00000001.jpg 165` in `places365_val.txt`,
    `/a/airfield 0` in `categories_places365.txt`. Raises CatalogError as `match_images` does, or if
    a list is missing or names an unknown category.
    """
    classes = _read_list(files, CLASSES, "label").with_columns(pl.col("label").str.slice(3))
    tables = []
    for part, name in (("train", "places365_train_standard.txt"), ("val", "places365_val.txt")):
        table = _read_list(files, name, "id").join(classes, on="number", how="left")
        unknown = table.filter(pl.col("label").is_null())["number"]
        if len(unknown):
            raise CatalogError(
                f"{name}: category {unknown[0]} is none of {CLASSES}; fetch both again"
            )
        ids, numbers = pl.col("id").str.strip_chars_start("/"), pl.col("number") + 1
        tables.append(table.with_columns(ids, numbers, part=pl.lit(part)).select(LISTED.names()))
    return match_images(images, pl.concat(tables), PLACES365)


def _read_list(files: Mapping[str, bytes], name: str, column: str) -> pl.DataFrame:
    columns = {column: pl.String, "number": pl.Int64}
    return parse_rows(get_file(files, name, PLACES365.files), name, columns)
