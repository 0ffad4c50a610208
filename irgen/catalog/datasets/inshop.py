"""DeepFashion's In-shop Clothes Retrieval Benchmark (Liu et al., CVPR 2016)."""

from collections.abc import Mapping

import polars as pl

from irgen.catalog.datasets.annotations import LISTED, Published, get_file, match_images, parse_rows
from irgen.errors import CatalogError

LIST = "list_eval_partition.txt"
INSHOP = Published(
    title="In-shop",
    files="put Img/img.zip, unpacked, and Eval/list_eval_partition.txt into the source: both come "
    "after signing the agreement at mmlab.ie.cuhk.edu.hk/projects/DeepFashion/InShopRetrieval.html",
    images={"train": 25_882, "query": 14_218, "gallery": 12_612},
    labels=7_982,
)


def read(images: pl.DataFrame, files: Mapping[str, bytes]) -> pl.DataFrame:
    """Read labels, which are item ids, and parts train, query and gallery. The list has the number
    of images, a heading, then lines `img/….jpg id_00000001 train|query|gallery`.

    Raises CatalogError as `match_images` does, or if the list is missing or names another part.
    """
    columns = dict.fromkeys(("id", "label", "part"), pl.String)
    table = parse_rows(get_file(files, LIST, INSHOP.files), LIST, columns, skip=2)
    unknown = table.filter(~pl.col("part").is_in(list(INSHOP.images)))["part"]
    if len(unknown):
        raise CatalogError(f"{LIST}: part {unknown[0]!r}; known: {', '.join(INSHOP.images)}")
    listed = table.with_columns(number=pl.lit(None, pl.Int64)).select(LISTED.names())
    return match_images(images, listed, INSHOP)
