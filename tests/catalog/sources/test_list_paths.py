"""Paths in a list mean the files that people mean, and say so if there are none."""

import os
import unicodedata
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from irgen.catalog.sources.image_list import list_file
from irgen.catalog.sources.listing import Listing
from irgen.errors import SourceError

Png = Callable[[int], bytes]


@pytest.fixture
def shop(tmp_path: Path, png: Png) -> Path:
    folder = tmp_path / "shop"
    (folder / "i").mkdir(parents=True)
    for number in range(4):
        (folder / "i" / f"{number}.png").write_bytes(png(number))
    return folder


def listed(folder: Path, paths: list[str], outside: bool = False) -> Listing:
    table = pl.DataFrame({"path": paths, "label": ["x"] * len(paths)})
    table.write_csv(folder / "list.csv")
    return list_file(folder / "list.csv", outside=outside)


def keys(listing: Listing) -> dict[str, str | None]:
    """Return the problem of each image by key; "absent" if the image does not exist."""
    return {e.key: e.problem or ("absent" if e.read is None else None) for e in listing.entries}


@pytest.mark.parametrize(
    "spelling",
    [
        *("i/{}.png", "i\\{}.png", ".\\i\\{}.png", "./i//{}.png", " i/{}.png ", "i/../i/{}.png"),
        *("file://{folder}/i/{{}}.png", "{folder}/i/{{}}.png", "../shop/i/{{}}.png"),
        *("C:\\photos\\2024\\i\\{}.png", "D:/i/{}.png", "\\\\server\\share\\i\\{}.png"),
        *("/home/somebody/photos/i/{}.png", "file:///C:/photos/i/{}.png", "%69/{}.png"),
    ],
)
def test_every_way_to_write_a_path_means_the_file_in_the_folder(shop: Path, spelling: str) -> None:
    spelling = spelling.format("{}", folder=shop) if "{folder}" in spelling else spelling
    spelling = spelling.replace("{{}}", "{}")
    listing = listed(shop, [spelling.format(number) for number in range(4)])
    assert keys(listing) == {f"i/{number}.png": None for number in range(4)}


def test_mixed_spellings_all_count(shop: Path) -> None:
    listing = listed(shop, ["i/0.png", "i\\1.png", f"{shop}/i/2.png", "C:\\x\\i\\3.png"])
    assert keys(listing) == {f"i/{number}.png": None for number in range(4)}


def test_another_machine_s_folder_is_told(shop: Path) -> None:
    (note,) = listed(shop, [f"C:\\photos\\i\\{number}.png" for number in range(4)]).notes
    assert "C:/photos/" in note and "read below" in note


def test_a_file_whose_name_holds_a_backslash_or_percent_sign_is_that_file(shop: Path) -> None:
    for name in ("i\\0.png", "100%20.png"):
        (shop / name).write_bytes(b"odd")
    listing = listed(shop, ["i\\0.png", "100%20.png", "i/0.png"])
    assert {e.read() for e in listing.entries if e.key != "i/0.png"} == {b"odd"}


def test_accents_may_be_composed_or_not(shop: Path) -> None:
    (shop / unicodedata.normalize("NFD", "é.png")).write_bytes(b"1")
    listing = listed(shop, [unicodedata.normalize("NFC", "é.png")])
    assert keys(listing) == {unicodedata.normalize("NFC", "é.png"): None}


def test_a_file_outside_of_the_folder_is_read_only_if_that_is_meant(shop: Path, png: Png) -> None:
    other = shop.parent / "other.png"
    other.write_bytes(png(9))
    for path in (str(other), "../other.png", f"file://{other}"):
        (reason,) = [p for p in keys(listed(shop, ["i/0.png", path])).values() if p]
        assert "download.outside" in reason
        assert keys(listed(shop, [path], outside=True)) == {str(other): None}


def test_a_link_out_of_the_folder_is_followed_only_if_that_is_meant(shop: Path) -> None:
    (shop.parent / "other.png").write_bytes(b"9")
    (shop / "i" / "9.png").symlink_to(shop.parent / "other.png")
    assert "outside" in (keys(listed(shop, ["i/9.png"]))["i/9.png"] or "")
    assert keys(listed(shop, ["i/9.png"], outside=True)) == {"i/9.png": None}


def test_what_cannot_be_had_has_its_reason_and_the_others_go_on(shop: Path) -> None:
    (shop / "i" / "link.png").symlink_to("nowhere.png")
    (shop / "i" / "loop.png").symlink_to("loop.png")
    os.mkfifo(shop / "i" / "pipe.png")
    reasons = keys(
        listed(shop, ["i/0.png", "i", "i/link.png", "i/loop.png", "i/pipe.png", "x" * 300, "i/7"])
    )
    assert reasons["i/0.png"] is None
    assert reasons["i/7"] == "absent"
    assert "folder" in reasons["i"]
    assert "No such file" in reasons["i/link.png"]
    assert "symbolic links" in reasons["i/loop.png"]
    assert "pipe" in reasons["i/pipe.png"]
    assert "too long" in reasons["x" * 300]


def test_rows_that_repeat_count_once_and_rows_that_differ_are_refused(shop: Path) -> None:
    listing = listed(shop, ["i/0.png", "i\\0.png", "i/1.png"])
    assert listing.count == 2 and listing.columns.height == 2
    assert "repeat another one: 1" in listing.notes[0]
    (shop / "list.csv").write_text("path,label\ni/0.png,a\n./i/0.png,b\n")
    with pytest.raises(SourceError, match=r"row 2 names i/0.png a second time.*row 1"):
        list_file(shop / "list.csv")


def test_rows_without_a_path_are_left_out_and_told(shop: Path) -> None:
    (shop / "list.csv").write_text("path;label\ni/0.png;a\n;b\n;\n\n")
    listing = list_file(shop / "list.csv")
    assert listing.count == 1
    assert listing.notes == ("rows without a path, which are left out: 1",)
