"""ImageNet as its publisher lays it out."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from scipy.io import savemat

from irgen.errors import CatalogError

pytestmark = pytest.mark.filterwarnings("ignore:ImageNet")

WNIDS = ["n02119789", "n02100735", "n00001740"]  # the last is above the others


def meta() -> bytes:
    kinds = [
        ("ILSVRC2012_ID", object),
        ("WNID", object),
        ("words", object),
        ("num_children", object),
    ]
    synsets = np.empty((len(WNIDS), 1), kinds)
    for row, wnid in enumerate(WNIDS):
        synsets[row, 0] = (np.int16(row + 1), wnid, "a, b", np.int16(2 * (row == 2)))
    file = io.BytesIO()
    savemat(file, {"synsets": synsets})
    return file.getvalue()


def layout(count: int = 21) -> dict[str, bytes | str | None]:
    """Return the files of an unpacked devkit, train/, and a flat val/ of ``count`` images of both
    classes."""
    devkit = "ILSVRC2012_devkit_t12/data/"
    return {
        **{f"train/{wnid}/{wnid}_{i}.JPEG": None for wnid in WNIDS[:2] for i in (10, 9)},
        **{f"val/ILSVRC2012_val_{i:08d}.JPEG": None for i in range(1, count + 1)},
        f"{devkit}ILSVRC2012_validation_ground_truth.txt": "".join(
            f"{1 + i % 2}\n" for i in range(1, count + 1)
        ),
        f"{devkit}meta.mat": meta(),
    }


def test_validation_images_have_the_labels_of_the_devkit(
    write: Callable, catalogued: Callable
) -> None:
    tables = catalogued(write(layout()))
    assert tables.about["format"] == "imagenet"
    assert tables.tables["train"].select("id", "label").row(0) == (
        "train/n02100735/n02100735_10.JPEG",
        "n02100735",
    )
    assert tables.tables["queries"].select("id", "label").rows()[:2] == [
        ("ILSVRC2012_val_00000001.JPEG", "n02100735"),
        ("ILSVRC2012_val_00000002.JPEG", "n02119789"),
    ]
    assert len(tables.ids("queries")) == 21 and tables.ids("database") == tables.ids("train")


def test_every_tenth_validation_image_asks_in_the_papers_protocol(
    write: Callable, catalogued: Callable
) -> None:
    tables = catalogued(write(layout()), protocol="irgen")
    assert tables.ids("queries") == [f"ILSVRC2012_val_{i:08d}.JPEG" for i in (1, 11, 21)]
    assert tables.metrics["images/rejected"] == 0


def test_a_val_folder_that_was_sorted_by_class_is_read_as_well(
    write: Callable, catalogued: Callable
) -> None:
    files = {
        path.replace("val/I", f"val/{WNIDS[1]}/I"): content for path, content in layout(2).items()
    }
    assert catalogued(write(files)).labels("queries") == set(WNIDS[:2])


def test_what_is_missing_is_told_with_where_to_get_it(
    write: Callable, catalogued: Callable
) -> None:
    files = layout(2)
    truth, table = (path for path in files if path.startswith("ILSVRC"))
    with pytest.raises(CatalogError, match=r"meta.mat is missing.*after its terms are accepted"):
        catalogued(write({k: v for k, v in files.items() if k != table}, "no-meta"))
    trained = {path: content for path, content in files.items() if not path.startswith("val")}
    with pytest.raises(CatalogError, match=r"no image in val/; found e.g. train/n02100735"):
        catalogued(write(trained, "no-val"))
    with pytest.raises(CatalogError, match=r"3 is no class of meta.mat"):  # the node above
        catalogued(write({**files, truth: "1\n3\n"}, "node"))
    with pytest.raises(CatalogError, match=r"1 lines, none for val/ILSVRC2012_val_00000002"):
        catalogued(write({**files, truth: "1\n"}, "short"))
