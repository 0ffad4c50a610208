"""ImageNet, the ILSVRC 2012 classification set (Russakovsky et al., IJCV 2015)."""

from collections.abc import Mapping

import polars as pl

from irgen.catalog.datasets.annotations import find, integers, rows, structs
from irgen.catalog.datasets.published import Published, tell_counts
from irgen.errors import CatalogError

IMAGENET = Published(
    title="ImageNet",
    files="put ILSVRC2012_img_train.tar as train/<wnid>/<wnid>_*.JPEG, ILSVRC2012_img_val.tar as "
    "val/ILSVRC2012_val_*.JPEG and ILSVRC2012_devkit_t12.tar.gz, unpacked, into the source: "
    "image-net.org/challenges/LSVRC/2012 gives them after its terms are accepted",
    images={"train": 1_281_167, "val": 50_000},
    labels=1_000,
)
TRUTH, META = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"
TRAIN = r"(?:^|/)(train/(n\d{8})/[^/]+)$"
VAL = r"(?:^|/)val/(?:n\d{8}/)?(ILSVRC2012_val_(\d{8})\.JPEG)$"


def read(images: pl.DataFrame, files: Mapping[str, bytes]) -> pl.DataFrame:
    """Labels are WordNet ids (n01440764 …): of a training image its folder's name, of validation
    image number i what line i of ``ILSVRC2012_validation_ground_truth.txt`` says, an id from 1 to
    1000 that ``meta.mat`` translates. Parts train and val; ``val/`` may be sorted into folders.

    Other images have no label, to be rejected; some of the validation images may be missing. Warns
    as ``placed`` does. Raises CatalogError if a file of the devkit is missing, says something else,
    or nothing of a validation image, and if there are no images in train/ or in val/.
    """
    known = _wnids(find(files, META, IMAGENET.files))
    lines = rows(find(files, TRUTH, IMAGENET.files), TRUTH, ("number",))
    truth = integers(lines, ("number",), TRUTH).with_row_index("line", offset=1)
    truth = truth.with_columns(pl.col("line").cast(pl.Int64)).join(known, on="number", how="left")
    if truth["wnid"].null_count():
        number = truth.filter(pl.col("wnid").is_null())["number"][0]
        raise CatalogError(f"{TRUTH}: {number} is no class of {META}; fetch the devkit again")
    key = pl.col("key")
    found = images.select("key", "sha256", "revision").with_columns(
        train=key.str.extract(TRAIN, 1),
        folder=key.str.extract(TRAIN, 2),
        val=key.str.extract(VAL, 1),
        line=key.str.extract(VAL, 2).cast(pl.Int64),
    )
    for name in ("train", "val"):
        if found[name].null_count() == len(found):
            first = found["key"][0] if len(found) else "nothing"
            raise CatalogError(
                f"ImageNet: no image in {name}/; found e.g. {first}; {IMAGENET.files}"
            )
    found = found.join(truth, on="line", how="left")
    beyond = found.filter(pl.col("val").is_not_null() & pl.col("wnid").is_null())["key"]
    if len(beyond):
        raise CatalogError(
            f"{TRUTH} has {len(truth):,} lines, none for {beyond[0]}; fetch it again"
        )
    placed = found.select(
        "sha256",
        "revision",
        path="key",
        id=pl.coalesce("train", "val", "key"),
        label=pl.coalesce("folder", "wnid"),
        part=pl.when(pl.col("train").is_not_null())
        .then(pl.lit("train"))
        .when(pl.col("val").is_not_null())
        .then(pl.lit("val")),
        number=pl.lit(None, pl.Int64),
    )
    tell_counts(placed, IMAGENET)
    return placed


def _wnids(content: bytes) -> pl.DataFrame:
    """Columns number and wnid of the classes; ``meta.mat`` also has the nodes above them."""
    fields = ("ILSVRC2012_ID", "WNID", "num_children")
    found = structs(content, META, "synsets", fields)
    numbers, wnids, children = (found[name] for name in fields)
    leaves = [
        (int(number), str(wnid))
        for number, wnid, below in zip(numbers, wnids, children, strict=True)
        if not below
    ]
    return pl.DataFrame(leaves, schema={"number": pl.Int64, "wnid": pl.String}, orient="row")
