"""Annotation files: the small lists that publishers put beside the images of their sets."""

import io
from collections.abc import Iterable, Mapping
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


def is_annotation(path: str) -> bool:
    """Whether a file is an annotation file of a set we can read, by its name alone.

    >>> is_annotation("CUB_200_2011/images.txt"), is_annotation("CUB_200_2011/README")
    (True, False)
    """
    name = path.rpartition("/")[2]
    return name in MARKERS or name in BESIDE


def annotated(paths: Iterable[str]) -> list[str]:
    """The annotation files among ``paths``, in their order; none without one that tells its set.

    >>> annotated(["cat/1.png", "classes.txt"])
    []
    >>> annotated(["classes.txt", "train_test_split.txt"])
    ['classes.txt', 'train_test_split.txt']
    """
    found = [path for path in paths if is_annotation(path)]
    return found if any(path.rpartition("/")[2] in MARKERS for path in found) else []


def without(images: pl.DataFrame) -> pl.DataFrame:
    """The rows of a manifest, column key, that are no annotation files; of a list's all rows.

    >>> without(pl.DataFrame({"key": ["images.txt", "images/1.jpg"]}))["key"].to_list()
    ['images/1.jpg']
    """
    if "label" in images.columns:
        return images
    return images.filter(pl.Series([not is_annotation(k) for k in images["key"]], dtype=pl.Boolean))


def sets_of(paths: Iterable[str]) -> set[str]:
    """The sets whose markers are among ``paths``."""
    names = (path.rpartition("/")[2] for path in paths)
    return {MARKERS[name] for name in names if name in MARKERS}


def has(files: Mapping[str, bytes], name: str) -> bool:
    """Whether a file of this name is there, in whatever folder."""
    return any(path.rpartition("/")[2] == name for path in files)


def find(files: Mapping[str, bytes], name: str, remedy: str) -> bytes:
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


def rows(content: bytes, name: str, columns: tuple[str, ...], *, skip: int = 0) -> pl.DataFrame:
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


def integers(table: pl.DataFrame, columns: tuple[str, ...], name: str) -> pl.DataFrame:
    """``table`` with these columns as Int64. Raises CatalogError for what is no whole number."""
    cast = table.with_columns(pl.col(columns).cast(pl.Int64, strict=False))
    for column in columns:
        wrong = table.filter(cast[column].is_null())[column]
        if len(wrong):
            raise CatalogError(
                f"{name}: <{column}> should be a whole number, found {wrong[0]!r}; fetch it again"
            )
    return cast


def structs(content: bytes, name: str, variable: str, fields: tuple[str, ...]) -> dict[str, list]:
    """Fields of the struct array ``variable`` of a MATLAB file, as plain lists in its order.

    Raises CatalogError if the file is damaged or has no such variable or field.
    """
    array = np.atleast_1d(matlab(content, name, variable))
    missing = [field for field in fields if field not in (array.dtype.names or ())]
    if missing:
        raise CatalogError(
            f"{name}: {variable} has no field {', '.join(missing)}; it has "
            f"{', '.join(array.dtype.names or ('none',))}: is it another file?"
        )
    return {field: [_plain(value) for value in array[field]] for field in fields}


def matlab(content: bytes, name: str, variable: str) -> np.ndarray:
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
