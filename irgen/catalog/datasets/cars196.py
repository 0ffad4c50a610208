"""Stanford Cars, 196 classes (Krause et al., 2013), as first published and merged."""

from collections.abc import Mapping

import polars as pl

from irgen.catalog.datasets.annotations import (
    LISTED,
    Published,
    get_file,
    has_file,
    match_images,
    read_matlab,
    read_structs,
)
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
    """Read labels, the classes' names (numbers 001 … if no file has the names), and parts train and
    test. With `cars_annos.mat` the images are in `car_ims/`, else in two folders.

    Raises CatalogError as `match_images` does, or if a list is missing or has no classes.
    """
    table = _read_merged(files) if has_file(files, MERGED) else _read_two_folders(files)
    source = MERGED if has_file(files, MERGED) else META
    names = _read_names(files, source) if has_file(files, source) else []
    numbers = table["number"]
    if not numbers.is_between(1, len(names) or CARS196.labels).all():
        raise CatalogError(
            f"Cars196: class {numbers.to_numpy().max()}, but {len(names) or 196} classes are known"
        )
    labels = [names[n - 1] if names else f"{n:03d}" for n in numbers]
    listed = table.with_columns(label=pl.Series(labels, dtype=pl.String)).select(LISTED.names())
    return match_images(images, listed, CARS196)


def _read_merged(files: Mapping[str, bytes]) -> pl.DataFrame:
    content = get_file(files, MERGED, CARS196.files)
    rows = read_structs(content, MERGED, "annotations", ("relative_im_path", "class", "test"))
    parts = ["test" if test else "train" for test in rows["test"]]
    return _to_table(list(map(str, rows["relative_im_path"])), rows["class"], parts)


def _read_two_folders(files: Mapping[str, bytes]) -> pl.DataFrame:
    tables = []
    for part, (folder, name) in FOLDERS.items():
        content = get_file(files, name, CARS196.files)
        rows = read_structs(content, name, "annotations", ("fname", "class"))
        ids = [f"{folder}/{file}" for file in rows["fname"]]
        tables.append(_to_table(ids, rows["class"], [part] * len(ids)))
    return pl.concat(tables)


def _to_table(ids: list[str], numbers: list[int], parts: list[str]) -> pl.DataFrame:
    schema = {"id": pl.String, "number": pl.Int64, "part": pl.String}
    return pl.DataFrame([ids, list(map(int, numbers)), parts], schema=schema)


def _read_names(files: Mapping[str, bytes], source: str) -> list[str]:
    names = read_matlab(get_file(files, source, CARS196.files), source, "class_names")
    return [str(name).strip() for name in names.reshape(-1)]
