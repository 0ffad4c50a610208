"""What a publisher says of a set, and where the images that its lists name lie in a source."""

import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import polars as pl

from irgen.errors import CatalogError

NAMED = pl.Schema(
    {
        "id": pl.String,  # the image's name in the publisher's lists
        "label": pl.String,
        "part": pl.String,  # the publisher's: train, test, gallery …
        "number": pl.Int64,  # of the class in the publisher's order, from 1; null: it has none
    }
)
TRIED = 50  # names looked up to find the folder that they count from


@dataclass(frozen=True, kw_only=True)
class Published:
    """A set as it was published: how to come by it, and how many images each part has."""

    title: str
    files: str  # what has to be in the source, and where from
    images: Mapping[str, int] = field(default_factory=dict)
    labels: int


def placed(images: pl.DataFrame, named: pl.DataFrame, about: Published) -> pl.DataFrame:
    """The images of a manifest with what the lists say of them: columns of NAMED, path, sha256,
    revision.

    ``named`` (columns of NAMED) is what the lists say. The images of each part lie below one
    folder, which is found. Images that no list names have no label, to be rejected. Warns if there
    are more or fewer than were published. Raises CatalogError if a list names an image twice or one
    that is not there.
    """
    twice = named.filter(pl.col("id").is_duplicated())["id"]
    if len(twice):
        raise CatalogError(f"{about.title}: the lists name {twice[0]} twice; fetch them again")
    keys = images["key"]
    parts = [
        part.with_columns(key=_folder(keys, part["id"], about) + pl.col("id"))
        for part in named.partition_by("part", maintain_order=True)
    ]
    paths = pl.concat(parts) if parts else named.with_columns(key=pl.col("id"))
    absent = paths.filter(~pl.col("key").is_in(keys.implode()))
    if len(absent):
        raise CatalogError(
            f"{about.title}: the lists name {len(absent):,} images that are not there, e.g. "
            f"{absent['key'][0]}; add them or take them out of the lists; {about.files}"
        )
    tell_counts(paths, about)
    found = images.select("sha256", "revision", path="key")
    found = found.join(paths.rename({"key": "path"}), on="path", how="left", validate="1:1")
    return found.with_columns(pl.col("id").fill_null(pl.col("path")))


def _folder(keys: pl.Series, names: pl.Series, about: Published) -> str:
    """The folder, with its slash, that most of the first names are found in."""
    found: Counter[str] = Counter()
    for name in names.head(TRIED):
        ends = keys.filter(keys.str.ends_with(name))
        found.update(
            key.removesuffix(name) for key in ends if key == name or key[-len(name) - 1] == "/"
        )
    if not found:
        first = keys[0] if len(keys) else "nothing"
        raise CatalogError(
            f"{about.title}: none of the images that the lists name is there: expected "
            f"…{names[0]}, found e.g. {first}; {about.files}"
        )
    return min(found, key=lambda folder: (-found[folder], len(folder), folder))


def tell_counts(named: pl.DataFrame, about: Published) -> None:
    """Warns, naming both numbers, of each part, and of the labels, that are more or fewer than
    published: part of a set is legal, and so is a copy that lacks something."""
    found = Counter(named["part"].drop_nulls())
    for part, wanted in about.images.items():
        if found[part] != wanted:
            _warn(f"{about.title}: {found[part]:,} images of part {part}, published: {wanted:,}")
    labels = named["label"].drop_nulls().n_unique()
    if labels != about.labels:
        _warn(f"{about.title}: {labels:,} labels, published: {about.labels:,}")


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=4)
