"""Stanford Online Products (Song et al., CVPR 2016)."""

from collections.abc import Mapping

import polars as pl

from irgen.catalog.datasets.annotations import find, integers, rows
from irgen.catalog.datasets.published import NAMED, Published, placed

PRODUCTS = Published(
    title="Stanford Online Products",
    files="the source is Stanford_Online_Products.zip of cvgl.stanford.edu/projects/lifted_struct, "
    "packed or not, with Ebay_train.txt, Ebay_test.txt and the folders that they name",
    images={"train": 59_551, "test": 60_502},
    labels=22_634,
)
COLUMNS = ("image", "number", "super_class", "id")


def read(images: pl.DataFrame, files: Mapping[str, bytes]) -> pl.DataFrame:
    """Labels are class ids; parts train (``Ebay_train.txt``) and test (``Ebay_test.txt``), which
    share none. A heading, then lines ``image_id class_id super_class_id path``.

    Raises CatalogError as ``placed`` does, or if a list is missing.
    """
    tables = []
    for part, name in (("train", "Ebay_train.txt"), ("test", "Ebay_test.txt")):
        table = rows(find(files, name, PRODUCTS.files), name, COLUMNS, skip=1)
        table = integers(table, ("number",), name)
        label = pl.col("number").cast(pl.String)
        tables.append(table.with_columns(label=label, part=pl.lit(part)).select(NAMED.names()))
    return placed(images, pl.concat(tables), PRODUCTS)
