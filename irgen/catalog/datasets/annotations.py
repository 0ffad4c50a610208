"""What publishers say of their data sets: small lists beside the images, and how many there are."""

import io
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from irgen.errors import CatalogError

# A file of one of these names tells the set it belongs to, whatever folder it lies in.
MARKERS = {
    "list_eval_partition.txt": "inshop",
    "train_test_split.txt": "cub200",
    "image_class_labels.txt": "cub200",
    "cars_annos.mat": "cars196",
    "cars_train_annos.mat": "cars196",
    "cars_test_annos.mat": "cars196",
    "cars_test_annos_withlabels.mat": "cars196",
    "ILSVRC2012_validation_ground_truth.txt": "imagenet",
    "places365_train_standard.txt": "places365",
    "places365_val.txt": "places365",
    "Ebay_train.txt": "products",
    "Ebay_test.txt": "products",
}
# These names are anybody's: such a file counts only where one of the above is.
BESIDE = ("images.txt", "classes.txt", "cars_meta.mat", "meta.mat", "categories_places365.txt")

LISTED = pl.Schema(
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


def is_annotation(path: str) -> bool:
    """Whether a file is an annotation file of a set we can read, by its name alone.

    >>> is_annotation("CUB_200_2011/images.txt"), is_annotation("CUB_200_2011/README")
    (True, False)
    """
    name = path.rpartition("/")[2]
    return name in MARKERS or name in BESIDE


def select_annotations(paths: Iterable[str]) -> list[str]:
    """The annotation files among ``paths``, in their order; none without one that tells its set.

    >>> select_annotations(["cat/1.png", "classes.txt"])
    []
    >>> select_annotations(["classes.txt", "train_test_split.txt"])
    ['classes.txt', 'train_test_split.txt']
    """
    found = [path for path in paths if is_annotation(path)]
    return found if any(path.rpartition("/")[2] in MARKERS for path in found) else []


def drop_annotations(images: pl.DataFrame) -> pl.DataFrame:
    """The rows of a manifest, column key, that are no annotation files; of a list's all rows.

    >>> drop_annotations(pl.DataFrame({"key": ["images.txt", "images/1.jpg"]}))["key"].to_list()
    ['images/1.jpg']
    """
    if "label" in images.columns:
        return images
    return images.filter(pl.Series([not is_annotation(k) for k in images["key"]], dtype=pl.Boolean))


def find_sets(paths: Iterable[str]) -> set[str]:
    """The sets whose markers are among ``paths``."""
    names = (path.rpartition("/")[2] for path in paths)
    return {MARKERS[name] for name in names if name in MARKERS}


def has_file(files: Mapping[str, bytes], name: str) -> bool:
    """Whether a file of this name is there, in whatever folder."""
    return any(path.rpartition("/")[2] == name for path in files)


def get_file(files: Mapping[str, bytes], name: str, remedy: str) -> bytes:
    """The content of the annotation file called ``name``, in whatever folder it lies.

    Raises CatalogError with the remedy if it is not there, or twice with different contents.
    """
    found = {path: content for path, content in files.items() if path.rpartition("/")[2] == name}
    if not found:
        there = ", ".join(sorted(files)) or "none"
        raise CatalogError(f"{name} is missing; annotation files found: {there}; {remedy}")
    if len(set(found.values())) > 1:
        raise CatalogError(f"{' and '.join(sorted(found))} differ; keep the one that is meant")
    return next(iter(found.values()))


def parse_rows(
    content: bytes, name: str, columns: tuple[str, ...], *, skip: int = 0
) -> pl.DataFrame:
    """The lines of a text file as text columns, split at white space; the first ``skip`` lines are
    its head, empty lines do not count.

    Raises CatalogError naming the first line that has not as many fields as ``columns``.
    """
    lines = content.decode("utf-8", "replace").splitlines()[skip:]
    table = []
    for number, line in enumerate(lines, start=skip + 1):
        if not line.strip():
            continue
        fields = line.split()
        if len(fields) != len(columns):
            raise CatalogError(
                f"{name}: line {number} should be {' '.join(f'<{c}>' for c in columns)}, found "
                f"{line[:80]!r}; fetch the file again"
            )
        table.append(fields)
    return pl.DataFrame(table, schema=dict.fromkeys(columns, pl.String), orient="row")


def parse_integers(table: pl.DataFrame, columns: tuple[str, ...], name: str) -> pl.DataFrame:
    """``table`` with these columns as Int64. Raises CatalogError for what is no whole number."""
    cast = table.with_columns(pl.col(columns).cast(pl.Int64, strict=False))
    for column in columns:
        wrong = table.filter(cast[column].is_null())[column]
        if len(wrong):
            raise CatalogError(
                f"{name}: <{column}> should be a whole number, found {wrong[0]!r}; fetch it again"
            )
    return cast


def read_structs(
    content: bytes, name: str, variable: str, fields: tuple[str, ...]
) -> dict[str, list]:
    """Fields of the struct array ``variable`` of a MATLAB file, as plain lists in its order.

    Raises CatalogError if the file is damaged or has no such variable or field.
    """
    array = np.atleast_1d(read_matlab(content, name, variable))
    missing = [field for field in fields if field not in (array.dtype.names or ())]
    if missing:
        raise CatalogError(
            f"{name}: {variable} has no field {', '.join(missing)}; it has "
            f"{', '.join(array.dtype.names or ('none',))}: is it another file?"
        )
    return {field: [_plain(value) for value in array[field]] for field in fields}


def read_matlab(content: bytes, name: str, variable: str) -> np.ndarray:
    """A variable of a MATLAB file, without its axes of length one. Reading one runs no code.

    Raises CatalogError if the file is damaged or has no such variable.
    """
    from scipy.io import loadmat  # half a second that other sets need not pay

    try:
        found = loadmat(io.BytesIO(content), squeeze_me=True, variable_names=[variable])
    except Exception as error:  # whatever a damaged file makes the reader trip over
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise CatalogError(
            f"{name} cannot be read as a MATLAB file ({reason}); fetch it again"
        ) from error
    if variable not in found:
        raise CatalogError(f"{name} has no variable {variable!r}: is it another file?")
    return np.asarray(found[variable])


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") and np.size(value) == 1 else value


def match_images(images: pl.DataFrame, named: pl.DataFrame, about: Published) -> pl.DataFrame:
    """The images of a manifest with what the lists say of them: columns of LISTED, path, sha256,
    revision.

    ``named`` (columns of LISTED) is what the lists say. The images of each part lie below one
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
    warn_of_counts(paths, about)
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


def warn_of_counts(named: pl.DataFrame, about: Published) -> None:
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
