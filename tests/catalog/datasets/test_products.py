"""Stanford Online Products as its publisher lays it out."""

from collections.abc import Callable

import pytest

from irgen.errors import CatalogError

pytestmark = pytest.mark.filterwarnings("ignore:Stanford")


def layout() -> dict[str, str | None]:
    train = [
        "1 1 1 bicycle_final/111_0.JPG",
        "2 1 1 bicycle_final/111_1.JPG",
        "3 2 2 sofa_final/222_0.JPG",
    ]
    test = ["4 11319 1 bicycle_final/333_0.JPG", "5 11319 1 bicycle_final/333_1.JPG"]
    head = "image_id class_id super_class_id path"
    lists = {
        "Ebay_train.txt": "\n".join([head, *train]),
        "Ebay_test.txt": "\n".join([head, *test]),
        "Ebay_info.txt": head,
    }
    images = {row.split()[3]: None for row in [*train, *test]}
    return {f"Stanford_Online_Products/{name}": text for name, text in {**images, **lists}.items()}


def test_test_images_ask_each_other_and_their_classes_are_not_trained_on(
    write: Callable, catalogued: Callable
) -> None:
    tables = catalogued(write(layout()))
    assert tables.tables["train"].select("id", "label").rows() == [
        ("bicycle_final/111_0.JPG", "1"),
        ("bicycle_final/111_1.JPG", "1"),
        ("sofa_final/222_0.JPG", "2"),
    ]
    assert (
        tables.ids("queries")
        == tables.ids("database")
        == [
            "bicycle_final/333_0.JPG",
            "bicycle_final/333_1.JPG",
        ]
    )
    assert tables.labels("queries") == {"11319"} and tables.about["format"] == "products"


def test_a_protocol_that_the_set_has_not_is_refused_with_those_it_has(
    write: Callable, catalogued: Callable
) -> None:
    with pytest.raises(CatalogError, match=r"'irgen' is not defined.*allowed: given, standard"):
        catalogued(write(layout()), protocol="irgen")


def test_a_missing_list_is_named(write: Callable, catalogued: Callable) -> None:
    files = layout()
    del files["Stanford_Online_Products/Ebay_test.txt"]
    with pytest.raises(CatalogError, match=r"Ebay_test.txt is missing.*Ebay_train.txt"):
        catalogued(write(files))


def test_a_class_of_both_lists_is_a_leak(write: Callable, catalogued: Callable) -> None:
    files = layout()
    name = "Stanford_Online_Products/Ebay_test.txt"
    source = write({**files, name: files[name].replace(" 11319 ", " 2 ")})
    assert catalogued(source).about["leaks"]["shared_label"] == 1
    message = r"a label of both sides: bicycle_final/333_0.JPG and sofa_final/222_0.JPG"
    with pytest.raises(CatalogError, match=message):
        catalogued(source, leaks="refuse")
