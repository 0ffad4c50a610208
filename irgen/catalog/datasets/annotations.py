"""Read the annotations of published data sets: small files beside the images."""

import io
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from irgen.errors import CatalogError, IrgenWarning

# A file of one of these names shows which data set this is, in whatever folder it lies.
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
# These names are common: such a file counts only where one of the above is.
BESIDE = ("images.txt", "classes.txt", "cars_meta.mat", "meta.mat", "categories_places365.txt")

LISTED = pl.Schema(
    {
        "id": pl.String,  # the image's name in the publisher's lists
        "label": pl.String,
        "part": pl.String,  # the publisher's: train, test, gallery …
        "number": pl.Int64,  # of the class in the publisher's order, from 1; null: none
    }
)
LOOKED_UP = 50  # names, to find the folder that they are relative to

Columns = Mapping[str, type[pl.DataType]]


@dataclass(frozen=True, kw_only=True)
class Published:
    """A data set as it was published: how to get it, and how many images each part has."""

    title: str
    files: str  # what the source has to hold, and where it comes from
    images: Mapping[str, int] = field(default_factory=dict)
    labels: int


def is_annotation(path: str) -> bool:
    """Tell by its name alone whether a file is an annotation file of a set we can read.

    >>> is_annotation("CUB_200_2011/images.txt"), is_annotation("CUB_200_2011/README")
    (True, False)
    """
    return _base(path) in MARKERS or _base(path) in BESIDE


def _base(path: str) -> str:
    return path.rpartition("/")[2]


def select_annotations(paths: Iterable[str]) -> list[str]:
    """Return the annotation files among `paths`, in their order; none if no file shows the set.

    >>> select_annotations(["cat/1.png", "classes.txt"])
    []
    >>> select_annotations(["classes.txt", "train_test_split.txt"])
    ['classes.txt', 'train_test_split.txt']
    """
    annotations = [path for path in paths if is_annotation(path)]
    return annotations if find_sets(annotations) else []


def drop_annotations(images: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of a manifest that are no annotation files; all rows of an image list.

    >>> drop_annotations(pl.DataFrame({"key": ["images.txt", "images/1.jpg"]}))["key"].to_list()
    ['images/1.jpg']
    """
    if "label" in images.columns:
        return images
    return images.filter(~has_annotation_key())


def has_annotation_key() -> pl.Expr:
    """Return the rows of a manifest whose key `is_annotation`."""
    return pl.col("key").str.extract(r"([^/]*)$").is_in([*MARKERS, *BESIDE])


def find_sets(paths: Iterable[str]) -> set[str]:
    """Return the data sets whose marker files are among `paths`."""
    return {MARKERS[_base(path)] for path in paths if _base(path) in MARKERS}


def has_file(files: Mapping[str, bytes], name: str) -> bool:
    """Tell whether a file of this name is there, in whatever folder."""
    return any(_base(path) == name for path in files)


def get_file(files: Mapping[str, bytes], name: str, remedy: str) -> bytes:
    """Return the content of the annotation file called `name`, in whatever folder it lies.

    Raises CatalogError with the remedy if it is missing, or there twice with different contents.
    """
    contents = {path: content for path, content in files.items() if _base(path) == name}
    if not contents:
        present = ", ".join(sorted(files)) or "none"
        raise CatalogError(f"{name} is missing; annotation files found: {present}; {remedy}")
    if len(set(contents.values())) > 1:
        raise CatalogError(f"{' and '.join(sorted(contents))} differ; keep the one that is meant")
    return next(iter(contents.values()))


def parse_rows(content: bytes, name: str, columns: Columns, *, skip: int = 0) -> pl.DataFrame:
    """Return the lines of a text file, split at white space, as the columns of these types.

    The first `skip` lines are a heading; empty lines do not count. Raises CatalogError naming the
    first line that has another number of fields, or what should be a whole number.
    """
    rows = []
    lines = content.decode("utf-8", "replace").splitlines()
    for number, line in enumerate(lines[skip:], start=skip + 1):
        fields = line.split()
        if fields and len(fields) != len(columns):
            raise CatalogError(
                f"{name}: line {number} should be {' '.join(f'<{c}>' for c in columns)}, found "
                f"{line[:80]!r}; fetch the file again"
            )
        if fields:
            rows.append(fields)
    table = pl.DataFrame(rows, schema=dict.fromkeys(columns, pl.String), orient="row")
    for column, kind in columns.items():
        values = table[column].cast(kind, strict=False)
        if values.null_count():
            wrong = table[column].filter(values.is_null())[0]
            raise CatalogError(
                f"{name}: <{column}> should be a whole number, found {wrong!r}; fetch it again"
            )
        table = table.with_columns(values)
    return table


def read_structs(
    content: bytes, name: str, variable: str, fields: tuple[str, ...]
) -> dict[str, list]:
    """Return fields of the struct array `variable` of a MATLAB file, as plain lists in its order.

    Raises CatalogError if the file is damaged or has no such variable or field.
    """
    array = np.atleast_1d(read_matlab(content, name, variable))
    missing = [field for field in fields if field not in (array.dtype.names or ())]
    if missing:
        raise CatalogError(
            f"{name}: {variable} has no field {', '.join(missing)}; it has "
            f"{', '.join(array.dtype.names or ('none',))}: is it another file?"
        )
    return {field: [_unwrap(value) for value in array[field]] for field in fields}


def read_matlab(content: bytes, name: str, variable: str) -> np.ndarray:
    """Return a variable of a MATLAB file, without axes of length one. Reading one runs no code.

    Raises CatalogError if the file is damaged or has no such variable.
    """
    from scipy.io import loadmat  # half a second that other sets need not pay

    try:
        variables = loadmat(io.BytesIO(content), squeeze_me=True, variable_names=[variable])
    except Exception as error:  # whatever a damaged file makes the reader trip over
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise CatalogError(
            f"{name} cannot be read as a MATLAB file ({reason}); fetch it again"
        ) from error
    if variable not in variables:
        raise CatalogError(f"{name} has no variable {variable!r}: is it another file?")
    return np.asarray(variables[variable])


def _unwrap(value: Any) -> Any:
    return value.item() if hasattr(value, "item") and np.size(value) == 1 else value


def match_images(images: pl.DataFrame, listed: pl.DataFrame, dataset: Published) -> pl.DataFrame:
    """Return the images of a manifest, path, sha256, revision, with the columns of LISTED.

    `listed`: what the lists say. The images of each part lie below one folder, which this finds.
    Images that no list names get no label, and are rejected later. Warns if there are more or fewer
    than were published. Raises CatalogError if a list names an image twice, or a missing one.
    """
    twice = listed.filter(pl.col("id").is_duplicated())["id"]
    if len(twice):
        raise CatalogError(f"{dataset.title}: the lists name {twice[0]} twice; fetch them again")
    keys = images["key"]
    parts = [
        part.with_columns(path=_find_folder(keys, part["id"], dataset) + pl.col("id"))
        for part in listed.partition_by("part", maintain_order=True)
    ]
    paths = pl.concat(parts) if parts else listed.with_columns(path=pl.col("id"))
    absent = paths.filter(~pl.col("path").is_in(keys.implode()))
    if len(absent):
        raise CatalogError(
            f"{dataset.title}: the lists name {len(absent):,} images that are not there, e.g. "
            f"{absent['path'][0]}; add them or take them out of the lists; {dataset.files}"
        )
    warn_of_counts(paths, dataset)
    catalog = images.select("sha256", "revision", path="key")
    catalog = catalog.join(paths, on="path", how="left", validate="1:1")
    return catalog.with_columns(pl.col("id").fill_null(pl.col("path")))


def _find_folder(keys: pl.Series, names: pl.Series, dataset: Published) -> str:
    """Return the folder, with its slash, that holds most of the first names."""
    folders: Counter[str] = Counter()
    for name in names.head(LOOKED_UP):
        ends = keys.filter(keys.str.ends_with(name))
        folders.update(
            key.removesuffix(name) for key in ends if key == name or key[-len(name) - 1] == "/"
        )
    if not folders:
        first = keys[0] if len(keys) else "nothing"
        raise CatalogError(
            f"{dataset.title}: none of the images that the lists name is there: expected "
            f"…{names[0]}, found e.g. {first}; {dataset.files}"
        )
    return min(folders, key=lambda folder: (-folders[folder], len(folder), folder))


def warn_of_counts(listed: pl.DataFrame, dataset: Published) -> None:
    """Warn if a part, or the labels, are more or fewer than published: that may be meant."""
    counts = Counter(listed["part"].drop_nulls())
    labels = listed["label"].drop_nulls().n_unique()
    texts = [
        f"{counts[part]:,} images of part {part}, published: {published:,}"
        for part, published in dataset.images.items()
        if counts[part] != published
    ]
    if labels != dataset.labels:
        texts.append(f"{labels:,} labels, published: {dataset.labels:,}")
    for text in texts:
        warnings.warn(f"{dataset.title}: {text}", IrgenWarning, stacklevel=3)
