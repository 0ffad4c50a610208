"""Stanford Cars, 196 classes (Krause et al., 2013), as first published and merged."""

from collections.abc import Mapping

import polars as pl

from irgen.catalog.datasets.annotations import find, has, matlab, structs
from irgen.catalog.datasets.published import NAMED, Published, placed
from irgen.errors import CatalogError

CARS196 = Published(
    title="Cars196",
    files="put either car_ims/ and cars_annos.mat, or cars_train/, cars_test/, "
    "cars_train_annos.mat and cars_test_annos_withlabels.mat (and cars_meta.mat for the names) "
    "into the source; "
    "ai.stanford.edu/~jkrause/cars/car_dataset.html gives them no longer, a copy does as well",
    images={"train": 8_144, "test": 8_041},
    labels=196,
)
MERGED, META = "cars_annos.mat", "cars_meta.mat"
FOLDERS = {
    "train": ("cars_train", "cars_train_annos.mat"),
    "test": ("cars_test", "cars_test_annos_withlabels.mat"),
}


def read(images: pl.DataFrame, files: Mapping[str, bytes]) -> pl.DataFrame:
    """Labels are the classes' names, or their numbers (001 …) where no file has the names; parts
    train and test. With ``cars_annos.mat`` the images are in ``car_ims/``, else in two folders.

    Raises CatalogError as ``placed`` does, or if a list is missing or has no classes.
    """
    table, names = _merged(files) if has(files, MERGED) else _two_folders(files)
    numbers = table["number"]
    if not numbers.is_between(1, len(names) or CARS196.labels).all():
        raise CatalogError(
            f"Cars196: class {numbers.to_numpy().max()}, but {len(names) or 196} classes are known"
        )
    labels = [names[n - 1] if names else f"{n:03d}" for n in numbers]
    named = table.with_columns(label=pl.Series(labels, dtype=pl.String)).select(NAMED.names())
    return placed(images, named, CARS196)


def _merged(files: Mapping[str, bytes]) -> tuple[pl.DataFrame, list[str]]:
    content = find(files, MERGED, CARS196.files)
    found = structs(content, MERGED, "annotations", ("relative_im_path", "class", "test"))
    part = ["test" if test else "train" for test in found["test"]]
    names = _names(content, MERGED)
    return _table(list(map(str, found["relative_im_path"])), found["class"], part), names


def _two_folders(files: Mapping[str, bytes]) -> tuple[pl.DataFrame, list[str]]:
    tables = []
    for part, (folder, name) in FOLDERS.items():
        content = find(files, name, CARS196.files)
        found = structs(content, name, "annotations", ("fname", "class"))
        ids = [f"{folder}/{file}" for file in found["fname"]]
        tables.append(_table(ids, found["class"], [part] * len(ids)))
    names = _names(find(files, META, ""), META) if has(files, META) else []
    return pl.concat(tables), names


def _table(ids: list[str], numbers: list[int], part: list[str]) -> pl.DataFrame:
    schema = {"id": pl.String, "number": pl.Int64, "part": pl.String}
    return pl.DataFrame({"id": ids, "number": list(map(int, numbers)), "part": part}, schema=schema)


def _names(content: bytes, name: str) -> list[str]:
    return [str(each).strip() for each in matlab(content, name, "class_names").reshape(-1)]
