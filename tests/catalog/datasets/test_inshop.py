"""In-shop as its publisher lays it out."""

from collections.abc import Callable

import pytest

from irgen.errors import CatalogError

pytestmark = pytest.mark.filterwarnings("ignore:In-shop")  # a miniature has fewer images

NAMES = {
    "img/WOMEN/Dresses/id_00000002/02_1_front.jpg": ("id_00000002", "train"),
    "img/WOMEN/Dresses/id_00000002/02_2_side.jpg": ("id_00000002", "train"),
    "img/MEN/Denim/id_00000080/01_1_front.jpg": ("id_00000080", "train"),
    "img/WOMEN/Blouses_Shirts/id_00000001/02_1_front.jpg": ("id_00000001", "query"),
    "img/WOMEN/Blouses_Shirts/id_00000001/02_2_side.jpg": ("id_00000001", "gallery"),
    "img/WOMEN/Blouses_Shirts/id_00000001/02_3_back.jpg": ("id_00000001", "gallery"),
}


def partition(names: dict = NAMES) -> str:
    lines = [f"{name}    {item} {part}" for name, (item, part) in names.items()]
    return "\n".join([str(len(names)), "image_name item_id evaluation_status", *lines, ""])


def layout(folder: str = "Img/", **more: str | None) -> dict[str, str | None]:
    return {**{folder + name: None for name in NAMES}, "Eval/list_eval_partition.txt": partition()}


def test_queries_ask_the_gallery_and_none_of_their_items_is_trained_on(
    write: Callable, catalogued: Callable
) -> None:
    tables = catalogued(write(layout()))
    assert tables.labels("train") == {"id_00000002", "id_00000080"}
    assert tables.labels("database") == tables.labels("queries") == {"id_00000001"}
    assert tables.ids("database") == [name for name in NAMES if NAMES[name][1] == "gallery"]
    assert set(tables.tables["database"].unnest("metadata").select("part", "role").rows()) == {
        ("gallery", "train")
    }
    assert (tables.about["format"], tables.about["protocol"]) == ("inshop", "given")
    assert tables.metrics["leaks/shared_label"] == 0
    assert catalogued(write(layout()), protocol="standard").ids("database") == tables.ids(
        "database"
    )


def test_in_the_papers_protocol_the_gallery_is_trained_on(
    write: Callable, catalogued: Callable
) -> None:
    tables = catalogued(write(layout()), protocol="irgen")
    assert (
        tables.ids("train")
        == tables.ids("database")
        == sorted(set(NAMES) - set(tables.ids("queries")))
    )
    assert tables.labels("queries") <= tables.labels("train")
    assert tables.about["protocol"] == "irgen"


@pytest.mark.parametrize("folder", ["", "In-shop Clothes Retrieval Benchmark/Img/"])
def test_an_image_has_the_same_id_wherever_the_images_lie(
    folder: str, write: Callable, catalogued: Callable
) -> None:
    assert catalogued(write(layout(folder)), format="inshop").ids("train") == sorted(
        name for name in NAMES if NAMES[name][1] == "train"
    )


@pytest.mark.parametrize("teaching", ["given", "clusters"])
def test_an_image_that_the_list_does_not_name_is_rejected_whoever_teaches(
    write: Callable, catalogued: Callable, teaching: str
) -> None:
    tables = catalogued(write({**layout(), "Img/img/other.jpg": None}), teaching)
    assert tables.rejected == [
        ("Img/img/other.jpg", "neither a class folder nor a list gives it a label")
    ]


def test_another_number_of_images_than_published_is_told(
    write: Callable, catalogued: Callable
) -> None:
    with pytest.warns(UserWarning, match="3 images of part train, published: 25,882"):
        catalogued(write(layout()))


def test_what_is_missing_or_another_set_is_told_with_where_to_get_it(
    write: Callable, catalogued: Callable
) -> None:
    source = write(dict.fromkeys(NAMES), "listless")
    with pytest.raises(CatalogError, match=r"list_eval_partition.txt is missing.*signing"):
        catalogued(source, format="inshop")
    short = layout()
    del short["Img/" + next(iter(NAMES))]
    with pytest.raises(CatalogError, match=r"name 1 images that are not there.*02_1_front.jpg"):
        catalogued(write(short, "short"))
    wrong = {"cat/1.jpg": None, "Eval/list_eval_partition.txt": partition()}
    with pytest.raises(CatalogError, match=r"expected …img/WOMEN.*found e.g. cat/1.jpg"):
        catalogued(write(wrong, "wrong"))
    text = partition().replace("gallery", "validation")
    with pytest.raises(CatalogError, match="part 'validation'; known: train, query, gallery"):
        catalogued(write({**layout(), "Eval/list_eval_partition.txt": text}, "parts"))
