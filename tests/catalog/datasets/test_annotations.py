"""Annotation files come with the images of a published set, and only with those."""

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from irgen.catalog import manifest
from irgen.catalog.datasets.annotations import find_sets, get_file, parse_rows
from irgen.catalog.shards import Images
from irgen.catalog.sources.bucket import list_bucket
from irgen.catalog.sources.listing import Source
from irgen.catalog.sources.local import list_folder
from irgen.catalog.sync import sync
from irgen.errors import CatalogError

Png = Callable[[int], bytes]
LISTS = {"images.txt": b"1 a/1.png\n", "train_test_split.txt": b"1 1\n"}


def fill(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def keys(root: Path) -> list[str]:
    return [entry.key for entry in list_folder(root).entries]


def test_annotation_files_are_listed_beside_the_images(tmp_path: Path, png: Png) -> None:
    hidden = {"__MACOSX/images.txt": b"", "README": b"", "notes.txt": b""}
    fill(tmp_path, {"images/a/1.png": png(1), **LISTS, **hidden})
    assert keys(tmp_path) == ["images.txt", "images/a/1.png", "train_test_split.txt"]


def test_a_file_of_a_common_name_alone_changes_nothing(tmp_path: Path, png: Png) -> None:
    """Expect the listing of a source without annotation files."""
    fill(tmp_path, {"top/a/1.png": png(1), "top/classes.txt": b"a", "top/images.txt": b"a/1.png"})
    assert keys(tmp_path) == ["a/1.png"]


def test_their_bytes_are_packed_as_images_are_and_do_not_count_as_such(
    tmp_path: Path, png: Png
) -> None:
    root = fill(tmp_path / "set", {"images/a/1.png": png(1), **LISTS})
    source = Source(name="set", stamp=None, load=lambda: list_folder(root))
    first = sync(source, tmp_path / "data")
    assert (first.images, first.new, first.relabelled, first.revision) == (1, 1, 0, 1)
    table, stored = manifest.read(tmp_path / "data"), Images(tmp_path / "data")
    hashes_by_key = dict(table.select("key", "sha256").iter_rows())
    assert {name: stored.read(hashes_by_key[name]) for name in LISTS} == LISTS
    assert not sync(source, tmp_path / "data")
    (root / "images.txt").write_bytes(b"1 a/2.png\n")
    change = sync(source, tmp_path / "data")
    assert (change.changed, change.relabelled, change.revision) == (0, 1, 2)


def test_a_bucket_gives_them_as_a_folder_does(tmp_path: Path, png: Png, buckets) -> None:
    from irgen.catalog.sources import s3_client

    buckets.fill(
        "shop", {"set/images/a/1.png": png(1), **{f"set/{n}": b for n, b in LISTS.items()}}
    )
    client = s3_client.connect(
        buckets.uri, requester_pays=False, customer_key=False, connections=1, retries=0
    )
    listing = list_bucket(client, "s3://shop/set", 1)
    assert [entry.key for entry in listing.entries] == [
        "images.txt",
        "images/a/1.png",
        "train_test_split.txt",
    ]


def test_a_file_is_found_in_whatever_folder_and_a_doubt_is_told() -> None:
    files = {"a/images.txt": b"1", "b/images.txt": b"1"}
    assert get_file(files, "images.txt", "") == b"1"
    with pytest.raises(CatalogError, match=r"a/images.txt and b/images.txt differ"):
        get_file(files | {"b/images.txt": b"2"}, "images.txt", "")
    with pytest.raises(CatalogError, match=r"x.txt is missing.*found: none; get it"):
        get_file({}, "x.txt", "get it")
    assert find_sets(["x/Ebay_test.txt", "images.txt"]) == {"products"}


def test_lines_may_end_and_be_indented_as_they_like() -> None:
    table = parse_rows(
        b"head\r\n a  b \r\n\r\nc\td", "x.txt", dict.fromkeys(("one", "two"), pl.String), skip=1
    )
    assert table.rows() == [("a", "b"), ("c", "d")]
