"""Omniglot (Lake et al., Science 2015): handwritten characters of fifty alphabets."""

from collections.abc import Mapping

import polars as pl

from irgen.catalog.datasets.annotations import Published, warn_of_counts
from irgen.errors import CatalogError

OMNIGLOT = Published(
    title="Omniglot",
    files="put images_background.zip and images_evaluation.zip of github.com/brendenlake/omniglot, "
    "unpacked, into the source",
    images={"background": 19_280, "evaluation": 13_180},
    labels=1_623,
)
DRAWING = r"(?:^|/)([^/]+)/(character\d+)/(\d+_\d+\.png)$"
PART = r"(?:^|/)images_(background|evaluation)(?:_small[12])?/"


def is_drawing() -> pl.Expr:
    """Tell whether an image's key is that of a drawing, alphabet/characterNN/NNNN_NN.png."""
    return pl.col("key").str.contains(DRAWING)


def read(images: pl.DataFrame, files: Mapping[str, bytes]) -> pl.DataFrame:
    """Read labels alphabet/characterNN, ids alphabet/characterNN/file, and parts background and
    evaluation, whose alphabets differ. A drawing outside of both folders is background.

    Other images get no label, and are rejected later. Warns as `match_images` does. Raises
    CatalogError if there is no drawing, and for the same drawing in two folders.
    """
    key = pl.col("key")
    alphabet, character, file = (key.str.extract(DRAWING, group) for group in (1, 2, 3))
    drawings = images.select(
        "sha256",
        "revision",
        path="key",
        id=pl.coalesce(alphabet + "/" + character + "/" + file, key),
        label=alphabet + "/" + character,
        part=pl.when(is_drawing()).then(key.str.extract(PART, 1).fill_null("background")),
        number=pl.lit(None, pl.Int64),
    )
    if drawings["label"].null_count() == len(drawings):
        first = drawings["path"][0] if len(drawings) else "nothing"
        raise CatalogError(
            "Omniglot: no image at images_background/<alphabet>/characterNN/NNNN_NN.png; found "
            f"e.g. {first}; {OMNIGLOT.files}"
        )
    twice = drawings.filter(pl.col("id").is_duplicated())["path"]
    if len(twice):
        raise CatalogError(
            f"Omniglot: {twice[0]} and {twice[1]} are the same drawing: the small sets are part of "
            "the background set; keep one of the two folders"
        )
    warn_of_counts(drawings, OMNIGLOT)
    return drawings
