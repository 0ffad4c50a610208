"""Labels and roles as folders or a list give them."""

import polars as pl
import pytest

from irgen.catalog import manifest
from irgen.catalog.formats import read_format, recognise_format
from irgen.errors import CatalogError


def listed(keys: list[str], **columns: list) -> pl.DataFrame:
    rows = [(key, 1, "", f"sha-{key}", 1, "r00001-000", 0, None, None) for key in keys]
    table = pl.DataFrame(rows, schema=manifest.SCHEMA, orient="row")
    return table.with_columns(**{name: pl.Series(v) for name, v in columns.items()}).sort("key")


def read(table: pl.DataFrame) -> pl.DataFrame:
    return read_format(table, recognise_format(table))


def said(table: pl.DataFrame) -> list[tuple]:
    return table.select("id", "label", "role").rows()


def test_class_folders_give_labels_and_no_roles() -> None:
    table = read(listed(["dog/1.png", "cat/1.png"]))
    assert said(table) == [("cat/1.png", "cat", None), ("dog/1.png", "dog", None)]
    assert table.columns == ["id", "path", "label", "role", "sha256", "revision"]


@pytest.mark.parametrize(
    ("folder", "role"),
    [
        *[(name, "train") for name in ("train", "Training", "database", "gallery")],
        *[(name, "validation") for name in ("validation", "val", "VALID")],
        *[(name, "query") for name in ("test", "query", "queries")],
    ],
)
def test_role_folders_of_any_name_and_case_give_roles(folder: str, role: str) -> None:
    table = read_format(listed([f"{folder}/cat/1.png", "train/dog/2.png"]), "folders")
    assert (f"{folder}/cat/1.png", "cat", role) in said(table)


def test_a_class_may_be_called_test() -> None:
    assert ("test/1.png", "test", None) in said(read(listed(["test/1.png", "cat/1.png"])))


def test_role_folders_that_hold_images_themselves_are_no_classes() -> None:
    table = listed(["train/1.png", "Test/2.png"])
    assert said(read(table)) == [("Test/2.png", None, "query"), ("train/1.png", None, "train")]
    with pytest.raises(CatalogError, match=r"lies directly in a role's folder.*train/cat/1.jpg"):
        read_format(table, "folders")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["cat/1.png", "logo.png"], "logo.png lies in no class folder"),
        (["cat/1.png", "cat/persian/1.png"], "too deep: allowed are class/file"),
        (["train/cat/1.png", "train/1.png"], "train/1.png does not fit"),
        (["train/cat/1.png", "cat/1.png"], "cat/1.png does not fit"),
        (["train/cat/x/1.png", "train/cat/1.png"], "does not fit"),
    ],
)
def test_folders_that_fit_no_format_are_clear_errors(keys: list[str], message: str) -> None:
    with pytest.raises(CatalogError, match=message):
        read(listed(keys))


def test_a_list_gives_label_role_id_and_metadata() -> None:
    table = listed(
        ["1.png", "2.png", "3.png"],
        label=["cat", "dog", None],
        role=["Test", " ", "gallery"],
        id=["c", None, "a"],
        price=[1.5, 2.5, None],
    )
    catalog = read(table)
    assert said(catalog) == [
        ("2.png", "dog", None),
        ("a", None, "train"),
        ("c", "cat", "query"),
    ]
    assert catalog.columns[-1] == "price"
    assert read(listed(["b/1.png"], label=["x"]))["id"].to_list() == ["b/1.png"]


def test_a_list_may_be_read_by_its_folders_instead() -> None:
    table = listed(["b/1.png"], label=["x"], role=["test"], price=[1])
    assert said(read_format(table, "folders")) == [("b/1.png", "b", None)]


def test_a_faulty_list_is_a_clear_error() -> None:
    with pytest.raises(CatalogError, match=r"'list' needs a \.csv"):
        read_format(listed(["cat/1.png"]), "list")
    with pytest.raises(CatalogError, match=r"role 'holdout'; known: train"):
        read_format(listed(["1.png"], label=["a"], role=["holdout"]), "list")
    with pytest.raises(CatalogError, match="id 'x' to several"):
        read(listed(["1.png", "2.png"], label=["a", "a"], id=["x", "x"]))


def test_images_that_are_not_there_are_left_out() -> None:
    table = listed(["cat/1.png", "cat/2.png"])
    absent = table.with_columns(
        sha256=pl.when(pl.col("key") == "cat/1.png").then(None).otherwise("sha256")
    )
    assert read(absent)["id"].to_list() == ["cat/2.png"]


def test_images_in_no_folder_are_recognised_as_images_without_labels() -> None:
    table = read(listed(["b.png", "a.png"]))
    assert said(table) == [("a.png", None, None), ("b.png", None, None)]
    assert table.schema["label"] == table.schema["role"] == pl.String


def test_images_without_labels_have_the_role_of_the_folder_at_the_top() -> None:
    keys = ["train/1.png", "Test/deep/2.png", "2019/05/3.png", "4.png", "val.png"]
    assert said(read_format(listed(keys), "images")) == [
        ("2019/05/3.png", None, None),
        ("4.png", None, None),
        ("Test/deep/2.png", None, "query"),
        ("train/1.png", None, "train"),
        ("val.png", None, None),
    ]
