"""A CSV or Parquet list as a source."""

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from irgen.catalog.sources.image_list import list_file
from irgen.errors import SourceError

Png = Callable[[int], bytes]


@pytest.fixture
def shop(tmp_path: Path, png: Png) -> Path:
    (tmp_path / "images").mkdir()
    for i in range(3):
        (tmp_path / "images" / f"{i}.png").write_bytes(png(i))
    return tmp_path


def rows(folder: Path, text: str) -> Path:
    path = folder / "shop.csv"
    path.write_text(text)
    return path


def test_paths_labels_and_metadata_keep_their_types(shop: Path, png: Png) -> None:
    path = rows(shop, "path,label,id,price\n./images//1.png,007,0001,3\nimages/0.png,cat,b,4.5\n")
    listing = list_file(path)
    assert [(e.key, e.read()) for e in listing.entries] == [
        ("images/0.png", png(0)),
        ("images/1.png", png(1)),
    ]
    assert listing.columns.to_dicts()[0] == {
        "key": "images/1.png",
        "label": "007",
        "id": "0001",
        "metadata": {"price": 3.0},
    }


def test_a_parquet_list_reads_the_same_and_number_labels_are_text(shop: Path) -> None:
    table = pl.DataFrame({"path": ["images/0.png"], "label": [7], "when": ["x"]})
    table.write_parquet(shop / "shop.parquet")
    listing = list_file(shop / "shop.parquet")
    assert listing.columns.rows() == [("images/0.png", "7", {"when": "x"})]


def test_a_missing_image_stays_listed_and_none_at_all_is_an_error(shop: Path) -> None:
    listing = list_file(rows(shop, "path,label\nimages/0.png,a\nimages/9.png,a\nimages,b\n"))
    assert [(e.key, e.read is None) for e in listing.entries] == [
        ("images", True),
        ("images/0.png", False),
        ("images/9.png", True),
    ]
    with pytest.raises(SourceError, match="none of the 1 images"):
        list_file(rows(shop, "path,label\nnope.png,a\n"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "cannot be read as a list"),
        ("path,label\n", "no rows"),
        ("file,label\nx,y\n", "no column 'path'; it has file, label"),
        ("path,class\nx,y\n", "no column 'label'"),
        ("path,label\n,a\n", "no rows with a path"),
        ("PK\3\4", "Excel workbook"),
        (
            "path,label\nimages/0.png,a\n./images/0.png,b\n",
            "row 2 names images/0.png a second time",
        ),
        ("path,label\na,b,c\n", "cannot be read as a list"),
    ],
)
def test_a_faulty_list_is_one_clear_error(shop: Path, text: str, said: str) -> None:
    with pytest.raises(SourceError, match=said):
        list_file(rows(shop, text))


def test_a_link_out_of_the_folder_has_a_problem(shop: Path, tmp_path_factory, png: Png) -> None:
    outside = tmp_path_factory.mktemp("outside") / "x.png"
    outside.write_bytes(png(1))
    (shop / "images" / "link.png").symlink_to(outside)
    (entry,) = list_file(rows(shop, "path,label\nimages/link.png,a\n")).entries
    assert "outside" in (entry.problem or "")
