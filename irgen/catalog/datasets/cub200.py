"""Caltech-UCSD Birds-200-2011 (Wah et al., 2011)."""

from collections.abc import Mapping

import polars as pl

from irgen.catalog.datasets.annotations import find, integers, rows
from irgen.catalog.datasets.published import NAMED, Published, placed
from irgen.errors import CatalogError

CUB200 = Published(
    title="CUB-200-2011",
    files="the source is CUB_200_2011.tgz of data.caltech.edu/records/65de6-vp158, packed or not, "
    "with images/, images.txt, image_class_labels.txt, train_test_split.txt and classes.txt",
    images={"train": 5_994, "test": 5_794},
    labels=200,
)
LISTS = {
    "images.txt": ("image", "id"),
    "image_class_labels.txt": ("image", "number"),
    "train_test_split.txt": ("image", "is_training"),
}


def read(images: pl.DataFrame, files: Mapping[str, bytes]) -> pl.DataFrame:
    """Labels are the names of ``classes.txt`` (001.Black_footed_Albatross …), parts train and test
    as in ``train_test_split.txt``; every list has lines ``number value``.

    Raises CatalogError as ``placed`` does, if a list is missing, or if they do not fit each other.
    """
    text = {name: find(files, name, CUB200.files) for name in (*LISTS, "classes.txt")}
    table = rows(text["images.txt"], "images.txt", LISTS["images.txt"])
    for name, columns in list(LISTS.items())[1:]:
        more = integers(rows(text[name], name, columns), columns[1:], name)
        table = table.join(more, on="image", how="left")
        _refuse_gaps(table, columns[1], name)
    classes = rows(text["classes.txt"], "classes.txt", ("number", "label"))
    classes = integers(classes, ("number",), "classes.txt")
    table = table.join(classes, on="number", how="left")
    _refuse_gaps(table, "label", "classes.txt")
    part = pl.when(pl.col("is_training") == 1).then(pl.lit("train")).otherwise(pl.lit("test"))
    return placed(images, table.with_columns(part=part).select(NAMED.names()), CUB200)


def _refuse_gaps(table: pl.DataFrame, column: str, name: str) -> None:
    gaps = table.filter(pl.col(column).is_null())["id"]
    if len(gaps):
        raise CatalogError(
            f"{name} says nothing of {len(gaps):,} images of images.txt, e.g. {gaps[0]}; fetch "
            "both again"
        )
