"""Stanford Online Products (Song et al., CVPR 2016)."""

from collections.abc import Mapping

import polars as pl

from irgen.catalog.datasets.annotations import (
    LISTED,
    Published,
    get_file,
    match_images,
    parse_rows,
)

PRODUCTS = Published(
    title="Stanford Online Products",
    files="the source is Stanford_Online_Products.zip of cvgl.stanford.edu/projects/lifted_struct, "
    "packed or not, with Ebay_train.txt, Ebay_test.txt and the folders that they name",
    images={"train": 59_551, "test": 60_502},
    labels=22_634,
)
COLUMNS = {
    "image": pl.String,
    "number": pl.Int64,
    "super_class": pl.String,
    "id": pl.String,
}


def read(images: pl.DataFrame, files: Mapping[str, bytes]) -> pl.DataFrame:
    """Read labels, which are class ids, and parts train (`Ebay_train.txt`) and test
    (`Ebay_test.txt`), which share no label. The lists have a heading, then lines
    `image_id class_id super_class_id path`.

    Raises CatalogError as `match_images` does, or if a list is missing.
    """
    tables = []
    for part, name in (("train", "Ebay_train.txt"), ("test", "Ebay_test.txt")):
        table = parse_rows(get_file(files, name, PRODUCTS.files), name, COLUMNS, skip=1)
        label = pl.col("number").cast(pl.String)
        tables.append(table.with_columns(label=label, part=pl.lit(part)).select(LISTED.names()))
    return match_images(images, pl.concat(tables), PRODUCTS)
