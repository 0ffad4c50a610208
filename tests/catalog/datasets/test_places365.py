"""Places365-Standard as its publisher lays it out."""

from collections.abc import Callable

import pytest

from irgen.errors import CatalogError

pytestmark = pytest.mark.filterwarnings("ignore:Places365")

TRAIN = {"/a/airfield/00000001.jpg": 0, "/a/apartment_building/outdoor/00000001.jpg": 1}
VAL = {"Places365_val_00000001.jpg": 1, "Places365_val_00000002.jpg": 0}


def lines(rows: dict[str, int]) -> str:
    return "".join(f"{name} {number}\n" for name, number in rows.items())


def layout(train: str = "data_256_standard", val: str = "val_256") -> dict[str, str | None]:
    return {
        **{f"{train}{name}": None for name in TRAIN},
        **{f"{val}/{name}": None for name in VAL},
        "places365_train_standard.txt": lines(TRAIN),
        "places365_val.txt": lines(VAL),
        "categories_places365.txt": "/a/airfield 0\n/a/apartment_building/outdoor 1\n",
        "IO_places365.txt": "/a/airfield 2\n",
    }


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ("data_256_standard", "val_256"),
        ("data_256", "val_256"),
        ("data_large_standard", "val_large"),
    ],
)
def test_training_images_are_the_database_and_validation_images_ask(
    train: str, val: str, write: Callable, catalogued: Callable
) -> None:
    tables = catalogued(write(layout(train, val)), protocol="irgen")
    assert tables.about["format"] == "places365"
    assert tables.tables["train"].select("id", "label").rows() == [
        ("a/airfield/00000001.jpg", "airfield"),
        ("a/apartment_building/outdoor/00000001.jpg", "apartment_building/outdoor"),
    ]
    assert tables.tables["queries"].select("id", "label").rows() == [
        ("Places365_val_00000001.jpg", "apartment_building/outdoor"),
        ("Places365_val_00000002.jpg", "airfield"),
    ]
    assert tables.ids("database") == tables.ids("train")


def test_a_category_that_is_not_listed_and_a_missing_list_are_clear_errors(
    write: Callable, catalogued: Callable
) -> None:
    files = layout()
    with pytest.raises(CatalogError, match=r"places365_val.txt: category 7 is none of categories"):
        catalogued(write({**files, "places365_val.txt": lines(VAL).replace(" 0", " 7")}, "seven"))
    del files["categories_places365.txt"]
    with pytest.raises(CatalogError, match=r"categories_places365.txt is missing.*terms"):
        catalogued(write(files))
