"""Caltech-UCSD Birds-200-2011 (Wah et al., 2011)."""

from collections.abc import Mapping

import polars as pl

from irgen.catalog.datasets.annotations import (
    LISTED,
    Columns,
    Published,
    get_file,
    match_images,
    parse_rows,
)
from irgen.errors import CatalogError

CUB200 = Published(
    title="CUB-200-2011",
    files="the source is CUB_200_2011.tgz of data.caltech.edu/records/65de6-vp158, packed or not, "
    "with images/, images.txt, image_class_labels.txt, train_test_split.txt and classes.txt",
    images={"train": 5_994, "test": 5_794},
    labels=200,
)
LISTS: dict[str, Columns] = {
    "images.txt": {"image": pl.String, "id": pl.String},
    "image_class_labels.txt": {"image": pl.String, "number": pl.Int64},
    "train_test_split.txt": {"image": pl.String, "is_training": pl.Int64},
    "classes.txt": {"number": pl.Int64, "label": pl.String},
}


def read(images: pl.DataFrame, files: Mapping[str, bytes]) -> pl.DataFrame:
    """Read labels from `classes.txt` (001.Black_footed_Albatross …), and parts train and test from
    `train_test_split.txt`; every list has lines `number value`.

    Raises CatalogError as `match_images` does, or if a list is missing or does not fit the others.
    """
    tables = {
        name: parse_rows(get_file(files, name, CUB200.files), name, columns)
        for name, columns in LISTS.items()
    }
    table = tables.pop("images.txt")
    for name, other in tables.items():
        key, value = LISTS[name]
        table = table.join(other, on=key, how="left")
        gaps = table.filter(pl.col(value).is_null())["id"]
        if len(gaps):
            raise CatalogError(
                f"{name} says nothing of {len(gaps):,} images of images.txt, e.g. {gaps[0]}; fetch "
                "both again"
            )
    part = pl.when(pl.col("is_training") == 1).then(pl.lit("train")).otherwise(pl.lit("test"))
    return match_images(images, table.with_columns(part=part).select(LISTED.names()), CUB200)
