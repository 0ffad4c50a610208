"""A CSV or Parquet list as a source."""

from collections.abc import Callable
from decimal import Decimal
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
        "metadata": {"price": "3"},  # until it is settled which type all have
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
        ("path,label\na,b,c\n", "line 2 has 3 values, but there are 2 columns"),
        ("path,label,a,a\nimages/0.png,b,1,2\n", "two columns named 'a'"),
        ('path,label\nimages/0.png,"b\n', "cannot be read as a list"),
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


def test_rows_may_be_ragged_where_nothing_is_lost(shop: Path) -> None:
    text = (
        'path,label,note,\n\nimages/0.png,a,"x\ny",,,\nimages/1.png,b\nimages/2.png,c,"q ""r"""\n'
    )
    columns = list_file(rows(shop, text)).columns
    assert columns["metadata"].to_list() == [{"note": "x\ny"}, {"note": None}, {"note": 'q "r"'}]


def test_whole_numbers_that_pandas_made_fractions_are_the_labels_they_were(shop: Path) -> None:
    paths = [f"images/{i}.png" for i in range(3)]
    pl.DataFrame({"path": paths, "label": [7.0, None, 8.0]}).write_parquet(shop / "shop.parquet")
    assert list_file(shop / "shop.parquet").columns["label"].to_list() == ["7", None, "8"]
    pl.DataFrame({"path": paths, "label": [[7], [8], []]}).write_parquet(shop / "shop.parquet")
    with pytest.raises(SourceError, match="'label' is of type List"):
        list_file(shop / "shop.parquet")


def test_decimals_boxes_and_structs_are_kept(shop: Path) -> None:
    table = pl.DataFrame(
        {
            "path": ["images/0.png"],
            "label": ["a"],
            "price": [Decimal("9.99")],
            "box": pl.Series([[1.0, 2.0]], dtype=pl.Array(pl.Float32, 2)),
            "about": [{"colour": {"red": [1]}}],
        }
    )
    table.write_parquet(shop / "shop.parquet")
    assert list_file(shop / "shop.parquet").columns["metadata"].to_list() == [
        {"price": Decimal("9.99"), "box": [1.0, 2.0], "about": {"colour": {"red": [1]}}}
    ]
