"""What lists name is found, and told apart from what was published."""

import warnings
from typing import get_args

import polars as pl
import pytest

from irgen.catalog import manifest
from irgen.catalog.datasets import cub200, inshop, products
from irgen.catalog.datasets.annotations import LISTED, Published, match_images
from irgen.catalog.datasets.protocols import PROTOCOLS, choose_protocol
from irgen.errors import CatalogError
from irgen.params.sections import Format

SMALL = Published(title="Small", files="get it at home", images={"train": 2}, labels=1)


def listed(keys: list[str]) -> pl.DataFrame:
    rows = [(key, 1, "", f"sha-{key}", 1, "r00001-000", 0, None, None) for key in keys]
    return pl.DataFrame(rows, schema=manifest.SCHEMA, orient="row").sort("key")


def named(ids: list[str], part: str = "train") -> pl.DataFrame:
    return pl.DataFrame([(name, "x", part, None) for name in ids], schema=LISTED, orient="row")


def test_the_folder_that_most_names_are_found_in_is_the_one() -> None:
    images = listed(["other/1.png", "set/1.png", "set/2.png", "set/21.png"])
    matches = match_images(images, named(["1.png", "2.png"]), SMALL)
    assert matches.filter(pl.col("label") == "x").select("id", "path").rows() == [
        ("1.png", "set/1.png"),
        ("2.png", "set/2.png"),
    ]
    assert matches.filter(pl.col("label").is_null())["id"].to_list() == [
        "other/1.png",
        "set/21.png",
    ]


def test_each_part_may_lie_in_a_folder_of_its_own() -> None:
    both = pl.concat([named(["1.png"]), named(["2.png"], "val")])
    with pytest.warns(UserWarning, match="1 images of part train, published: 2"):
        matches = match_images(listed(["a/1.png", "b/c/2.png"]), both, SMALL)
    assert matches["id"].to_list() == ["1.png", "2.png"]


def test_a_name_that_is_given_twice_is_refused() -> None:
    with pytest.raises(CatalogError, match=r"Small: the lists name 1.png twice"):
        match_images(listed(["1.png"]), named(["1.png", "1.png"]), SMALL)


def test_the_whole_of_cub_is_told_of_with_no_word() -> None:
    images = [f"{1 + i % 200:03d}.Bird/{i}.jpg" for i in range(11_788)]
    lists = {
        "images.txt": images,
        "image_class_labels.txt": [1 + i % 200 for i in range(11_788)],
        "train_test_split.txt": [int(i < 5_994) for i in range(11_788)],
    }
    files = {
        name: "\n".join(f"{i} {value}" for i, value in enumerate(values, start=1)).encode()
        for name, values in lists.items()
    }
    files["classes.txt"] = "\n".join(f"{i} {i:03d}.Bird" for i in range(1, 201)).encode()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = cub200.read(listed([f"images/{name}" for name in images]), files)
    assert table["label"].n_unique() == 200 and len(table) == 11_788


def test_the_numbers_that_were_published_add_up() -> None:
    """In-shop and Products in all, as their papers say: 52,712 and 120,053 images."""
    assert sum(inshop.INSHOP.images.values()) == 52_712
    assert sum(products.PRODUCTS.images.values()) == 120_053
    assert sum(cub200.CUB200.images.values()) == 11_788


def test_every_format_has_protocols_and_given_is_one() -> None:
    formats = {name for kind in get_args(Format) for name in get_args(kind)}
    assert set(PROTOCOLS) == formats - {"auto"}
    assert all("given" in protocols for protocols in PROTOCOLS.values())
    with pytest.raises(CatalogError, match=r"'standard' is not defined.*'imagenet'.*given, irgen"):
        choose_protocol("imagenet", "standard")


def test_nobody_asks_who_was_trained_on_where_classes_are_unseen() -> None:
    for protocols in PROTOCOLS.values():
        for protocol in protocols.values():
            if protocol.disjoint:
                assert set(protocol.database).isdisjoint({"train", "validation"})
