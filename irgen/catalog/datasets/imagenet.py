"""ImageNet, the ILSVRC 2012 classification set (Russakovsky et al., IJCV 2015)."""

from collections.abc import Mapping

import polars as pl

from irgen.catalog.datasets.annotations import (
    Published,
    get_file,
    parse_rows,
    read_structs,
    warn_of_counts,
)
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
    """Read labels, WordNet ids (n01440764 …), and parts train and val. The label of a training
    image is its folder's name; that of validation image i is line i of
    `ILSVRC2012_validation_ground_truth.txt`, a number that `meta.mat` translates. `val/` may be
    sorted into folders.

    Other images get no label, and are rejected later; some validation images may be missing. Warns
    as `match_images` does. Raises CatalogError if a file of the devkit is missing or damaged, or
    says nothing of a validation image, and if there are no images in train/ or in val/.
    """
    wnids = _read_wnids(get_file(files, META, IMAGENET.files))
    truth = parse_rows(get_file(files, TRUTH, IMAGENET.files), TRUTH, {"number": pl.Int64})
    truth = truth.with_columns(line=pl.int_range(1, pl.len() + 1, dtype=pl.Int64))
    truth = truth.join(wnids, on="number", how="left", maintain_order="left")
    unknown = truth.filter(pl.col("wnid").is_null())["number"]
    if len(unknown):
        raise CatalogError(f"{TRUTH}: {unknown[0]} is no class of {META}; fetch the devkit again")
    key = pl.col("key")
    matches = images.select("key", "sha256", "revision").with_columns(
        train=key.str.extract(TRAIN, 1),
        folder=key.str.extract(TRAIN, 2),
        val=key.str.extract(VAL, 1),
        line=key.str.extract(VAL, 2).cast(pl.Int64),
    )
    for name in ("train", "val"):
        if matches[name].null_count() == len(matches):
            first = matches["key"][0] if len(matches) else "nothing"
            raise CatalogError(
                f"ImageNet: no image in {name}/; found e.g. {first}; {IMAGENET.files}"
            )
    matches = matches.join(truth, on="line", how="left")
    beyond = matches.filter(pl.col("val").is_not_null() & pl.col("wnid").is_null())["key"]
    if len(beyond):
        raise CatalogError(
            f"{TRUTH} has {len(truth):,} lines, none for {beyond[0]}; fetch it again"
        )
    is_train, is_val = pl.col("train").is_not_null(), pl.col("val").is_not_null()
    catalog = matches.select(
        "sha256",
        "revision",
        path="key",
        id=pl.coalesce("train", "val", "key"),
        label=pl.coalesce("folder", "wnid"),
        part=pl.when(is_train).then(pl.lit("train")).when(is_val).then(pl.lit("val")),
        number=pl.lit(None, pl.Int64),
    )
    warn_of_counts(catalog, IMAGENET)
    return catalog


def _read_wnids(content: bytes) -> pl.DataFrame:
    """Return columns number and wnid of the classes; `meta.mat` also has the nodes above them."""
    fields = ("ILSVRC2012_ID", "WNID", "num_children")
    nodes = zip(*read_structs(content, META, "synsets", fields).values(), strict=True)
    classes = [(int(number), str(wnid)) for number, wnid, children in nodes if not children]
    return pl.DataFrame(classes, schema={"number": pl.Int64, "wnid": pl.String}, orient="row")
