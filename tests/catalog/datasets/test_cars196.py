"""Stanford Cars as first published, in two folders, and merged."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from scipy.io import savemat

from irgen.errors import CatalogError

pytestmark = pytest.mark.filterwarnings("ignore:Cars196")

NAMES = [f"Make Model {n} 2012" for n in range(1, 197)]
CLASSES = [1, 98, 99, 196]


def matlab(**variables: np.ndarray) -> bytes:
    file = io.BytesIO()
    savemat(file, variables)
    return file.getvalue()


def cell(values: list[str]) -> np.ndarray:
    """Return a 1 × n cell array, as MATLAB writes one."""
    array = np.empty((1, len(values)), object)
    array[0] = values
    return array


def structs(fields: dict[str, list]) -> np.ndarray:
    """Return a 1 × n struct array with boxes before the fields, as the devkit has it."""
    count = len(next(iter(fields.values())))
    boxes = {f"bbox_{name}": [np.uint16(5)] * count for name in ("x1", "y1", "x2", "y2")}
    whole = boxes | fields
    array = np.empty((1, count), [(name, object) for name in whole])
    for name, values in whole.items():
        array[name][0] = values
    return array


def two_folders() -> dict[str, bytes | None]:
    numbers = [np.uint8(n) for n in CLASSES]
    files = [f"{i:05d}.jpg" for i in range(1, len(CLASSES) + 1)]
    annotations = matlab(annotations=structs({"class": numbers, "fname": files}))
    return {
        **{f"cars_train/{file}": None for file in files},
        **{f"cars_test/{file}": None for file in files},
        "devkit/cars_train_annos.mat": annotations,
        "devkit/cars_test_annos.mat": matlab(annotations=structs({"fname": files})),
        "devkit/cars_meta.mat": matlab(class_names=cell(NAMES)),
        "cars_test_annos_withlabels.mat": annotations,
    }


def merged() -> dict[str, bytes | None]:
    paths = [f"car_ims/{i:06d}.jpg" for i in range(1, 2 * len(CLASSES) + 1)]
    fields = {
        "relative_im_path": paths,
        "class": [np.uint8(n) for n in CLASSES * 2],
        "test": [np.uint8(i >= len(CLASSES)) for i in range(len(paths))],
    }
    file = matlab(annotations=structs(fields), class_names=cell(NAMES))
    return {**dict.fromkeys(paths), "cars_annos.mat": file}


@pytest.mark.parametrize("layout", [two_folders, merged])
def test_both_layouts_say_the_same(layout: Callable, write: Callable, catalogued: Callable) -> None:
    source = write(layout())
    tables = catalogued(source, protocol="irgen")
    assert tables.about["format"] == "cars196"
    labels = [NAMES[number - 1] for number in CLASSES]
    assert tables.tables["train"]["label"].to_list() == labels
    assert tables.tables["queries"]["label"].to_list() == labels
    assert tables.ids("train") == tables.ids("database")
    standard = catalogued(source, protocol="standard")
    assert standard.labels("train") == set(labels[:2])
    assert standard.labels("queries") == standard.labels("database") == set(labels[2:])
    assert len(standard.ids("train")) == len(standard.ids("database")) == 4


def test_without_the_names_labels_are_numbers(write: Callable, catalogued: Callable) -> None:
    files = two_folders()
    del files["devkit/cars_meta.mat"]
    assert catalogued(write(files)).labels("train") == {"001", "098", "099", "196"}


def test_labels_that_are_missing_or_damaged_are_clear_errors(
    write: Callable, catalogued: Callable
) -> None:
    files = two_folders()
    del files["cars_test_annos_withlabels.mat"]
    with pytest.raises(CatalogError, match=r"cars_test_annos_withlabels.mat is missing"):
        catalogued(write(files, "unlabelled"))
    renamed = {**files, "cars_test_annos_withlabels.mat": files["devkit/cars_test_annos.mat"]}
    with pytest.raises(CatalogError, match="no field class; it has bbox_x1"):
        catalogued(write(renamed, "renamed"))
    with pytest.raises(CatalogError, match=r"cars_annos.mat cannot be read as a MATLAB file"):
        catalogued(write({**merged(), "cars_annos.mat": b"no"}, "damaged"))
    with pytest.raises(CatalogError, match="no variable 'annotations'"):
        catalogued(write({**merged(), "cars_annos.mat": matlab(x=np.ones(2))}, "other"))
