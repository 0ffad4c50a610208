"""CUB-200-2011 as its publisher lays it out."""

import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from irgen.errors import CatalogError

pytestmark = pytest.mark.filterwarnings("ignore:CUB")

CLASSES = {1: "001.Black_footed_Albatross", 100: "100.Brown_Pelican", 101: "101.White_Pelican"}


def layout() -> dict[str, str | None]:
    """Four images a class, every second for training; beside the lists what else is packed."""
    images = [
        (number, f"{name}/{name[4:]}_{i:04d}.jpg")
        for number, name in CLASSES.items()
        for i in range(4)
    ]
    rows = list(enumerate(images, start=1))
    lists = {
        "images.txt": [f"{i} {path}" for i, (_, path) in rows],
        "image_class_labels.txt": [f"{i} {number}" for i, (number, _) in rows],
        "train_test_split.txt": [f"{i} {i % 2}" for i, _ in rows],
        "classes.txt": [f"{number} {name}" for number, name in CLASSES.items()],
        "bounding_boxes.txt": ["1 60.0 27.0 325.0 304.0"],
        "attributes/certainties.txt": ["1 not visible"],
    }
    texts = {f"CUB_200_2011/{name}": "\n".join(lines) + "\n" for name, lines in lists.items()}
    pictures = {f"CUB_200_2011/images/{path}": None for _, (_, path) in rows}
    return {**pictures, **texts, "attributes.txt": "1 has_bill_shape::curved\n"}


@pytest.fixture
def source(write: Callable) -> Path:
    return write(layout())


@pytest.mark.parametrize("protocol", ["given", "irgen"])
def test_the_publishers_split_has_the_same_classes_on_both_sides(
    protocol: str, source: Path, catalogued: Callable
) -> None:
    tables = catalogued(source, protocol=protocol)
    assert tables.about["format"] == "cub200" and tables.about["protocol"] == protocol
    for name in ("train", "database", "queries"):
        assert tables.labels(name) == set(CLASSES.values())
        assert len(tables.tables[name]) == 6
    assert tables.ids("train") == tables.ids("database")
    assert tables.ids("train")[0] == "001.Black_footed_Albatross/Black_footed_Albatross_0000.jpg"
    assert tables.rejected == []


def test_the_last_hundred_classes_ask_each_other_in_the_standard_protocol(
    source: Path, catalogued: Callable
) -> None:
    tables = catalogued(source, protocol="standard")
    assert tables.labels("train") == {CLASSES[1], CLASSES[100]} and len(tables.ids("train")) == 8
    assert tables.ids("queries") == tables.ids("database")
    assert tables.labels("queries") == {CLASSES[101]} and len(tables.ids("queries")) == 4
    assert tables.metrics["queries_in_database"] == 0  # a query is no leak of itself
    assert sum(tables.about["leaks"].values()) == 0


def test_the_archive_is_read_as_the_folder(
    source: Path, catalogued: Callable, tmp_path: Path
) -> None:
    before = catalogued(source)
    with tarfile.open(tmp_path / "CUB_200_2011.tgz", "w:gz") as archive:
        archive.add(source, ".")
    after = catalogued(tmp_path / "CUB_200_2011.tgz")
    for name, table in before.tables.items():
        assert after.tables[name].equals(table)


@pytest.mark.parametrize("name", ["images.txt", "classes.txt", "train_test_split.txt"])
def test_a_missing_list_is_named(name: str, source: Path, catalogued: Callable) -> None:
    (source / "CUB_200_2011" / name).unlink()
    with pytest.raises(CatalogError, match=rf"{name} is missing; annotation files found: CUB.*tgz"):
        catalogued(source)


def test_lists_that_do_not_fit_each_other_are_clear_errors(
    source: Path, catalogued: Callable
) -> None:
    lists = source / "CUB_200_2011"
    (lists / "classes.txt").write_text("1 001.Black_footed_Albatross\n")
    with pytest.raises(CatalogError, match=r"classes.txt says nothing of 8 images.*100.Brown"):
        catalogued(source)
    (lists / "train_test_split.txt").write_text("1 x\n")
    with pytest.raises(CatalogError, match="<is_training> should be a whole number, found 'x'"):
        catalogued(source)
    (lists / "images.txt").write_text("1\n")
    with pytest.raises(CatalogError, match=r"images.txt: line 1 should be <image> <id>, found '1'"):
        catalogued(source)
