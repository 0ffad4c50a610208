"""What the texts of a CSV mean, and how a column keeps its type from one update to the next."""

import datetime
import math
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest

from irgen.catalog import manifest
from irgen.catalog.changes import Change
from irgen.catalog.column_types import convert, settle_column, settle_types
from irgen.catalog.sources.image_list import list_file
from irgen.catalog.sources.listing import Listing, Source
from irgen.catalog.sync import has_changed, sync
from irgen.errors import SourceError

WHOLE, REAL, TEXT = pl.Int64(), pl.Float64(), pl.String()


@pytest.mark.parametrize(
    ("texts", "values"),
    [
        (["00007", "8"], ["00007", "8"]),
        (["7", " 8 ", "", None], [7, 8, None, None]),
        (["7", "8.5", "n/a", "NaN"], [7.0, 8.5, None, None]),
        (["7", "8", "A-17"], ["7", "8", "A-17"]),
        (["TRUE", "false", "-"], [True, False, None]),
        (["1", "0"], [1, 0]),
        (["1,000", "2"], ["1,000", "2"]),
        (["12E4", "5E6"], ["12E4", "5E6"]),
        (["+49", "7"], ["+49", "7"]),
        (["1e-05", "2.5E+3", "-.5"], [1e-05, 2500.0, -0.5]),
        (["inf", "-inf", "-0.0"], [math.inf, -math.inf, -0.0]),
        (["12345678901234567890", "1"], ["12345678901234567890", "1"]),
        (["1234567890123456789.5", "1"], ["1234567890123456789.5", "1"]),
        (["nan", "NA"], ["nan", "NA"]),
        (["NA", "DE"], ["NA", "DE"]),
        (["2026-01-31", "2026-02-01"], ["2026-01-31", "2026-02-01"]),
    ],
)
def test_texts_become_another_type_only_if_nothing_is_lost(texts: list, values: list) -> None:
    settled = settle_column(pl.Series(texts), is_text=True)
    assert settled.values.to_list() == values
    assert not settled.note


@pytest.mark.parametrize(
    ("earlier", "texts", "kind", "last"),
    [
        (WHOLE, ["7"] * 20 + ["A-17"], WHOLE, None),
        (WHOLE, ["7", "8", "A-17"], WHOLE, None),
        (WHOLE, ["7.0", "nan", "8.0"], WHOLE, 8),
        (WHOLE, ["7", "8", "007"], WHOLE, None),
        (WHOLE, ["00007", "00008"], TEXT, "00008"),
        (WHOLE, ["7", "8.5"], REAL, 8.5),
        (REAL, ["7", "8"], REAL, 8.0),
        (TEXT, ["7", "8"], TEXT, "8"),
        (TEXT, ["9.90", "007"], TEXT, "007"),
        (pl.Boolean(), ["true", "1", "no"], pl.Boolean(), False),
        (pl.Decimal(10, 2), ["9.99", "8"], pl.Decimal(10, 2), Decimal(8)),
        (WHOLE, ["a", "b", "7"], TEXT, "7"),
        (pl.List(TEXT), ["a", "b"], TEXT, "b"),
    ],
)
def test_a_column_keeps_its_type_unless_much_does_not_fit(
    earlier: pl.DataType, texts: list[str], kind: pl.DataType, last: object
) -> None:
    settled = settle_column(pl.Series(texts), earlier, is_text=True)
    assert settled.values.dtype == kind
    assert settled.values[-1] == last


@pytest.mark.parametrize(
    ("earlier", "values", "kept"),
    [
        (WHOLE, [7.0, None, 8.0], [7, None, 8]),  # as pandas writes them
        (WHOLE, [7.0, math.nan], [7, None]),
        (WHOLE, [7.5, None], [7.5, None]),
        (pl.Int8(), [7, 300], [7, 300]),
        (TEXT, [7, 8], ["7", "8"]),
        (TEXT, [7.0, None], ["7", None]),
        (pl.Datetime("us"), [datetime.date(2026, 1, 1)], [datetime.datetime(2026, 1, 1)]),
        (WHOLE, [[7], [8]], [[7], [8]]),
    ],
)
def test_a_parquet_column_keeps_its_type_where_its_values_do(
    earlier: pl.DataType, values: list, kept: list
) -> None:
    assert settle_column(pl.Series(values), earlier, is_text=False).values.to_list() == kept


@pytest.mark.parametrize(
    ("kind", "texts", "values", "others"),
    [
        (pl.Date(), ["2026-01-31", "2026-02-30"], [datetime.date(2026, 1, 31), None], 1),
        (
            pl.Datetime("us"),
            ["2026-01-31T12:00:00Z", "2026-01-31 13:00+01:00", "2026-01-31", "soon"],
            [datetime.datetime(2026, 1, 31, 12)] * 2 + [datetime.datetime(2026, 1, 31), None],
            1,
        ),
        (pl.Time(), ["12:00", "noon"], [datetime.time(12), None], 1),
        (pl.Boolean(), ["Yes", "0", "maybe", ""], [True, False, None, None], 1),
        (pl.Int8(), ["7", "300", "7.0", "7.5"], [7, None, 7, None], 2),
    ],
)  # fmt: skip
def test_texts_are_read_as_the_type_that_is_declared(
    kind: pl.DataType, texts: list[str], values: list, others: int
) -> None:
    kept, lost = convert(pl.Series(texts), kind)
    assert kept.to_list() == values
    assert len(lost) == others


@pytest.fixture
def update(tmp_path: Path, png: Callable[[int], bytes]) -> Callable[..., Change]:
    """Sync a CSV of these texts; check that each change is noticed once."""
    for i in range(24):
        (tmp_path / f"{i}.png").write_bytes(png(i))

    def run(texts: list[str], name: str = "sku", **types: str) -> Change:
        lines = [f"path,label,{name}", *(f"{i}.png,a,{text}" for i, text in enumerate(texts))]
        (tmp_path / "shop.csv").write_text("\n".join(lines))

        def load() -> Listing:
            return list_file(tmp_path / "shop.csv")

        source = Source(name="shop", stamp=None, load=load, types=types)
        change = sync(source, tmp_path / "data")
        assert not has_changed(source, tmp_path / "data")
        assert not sync(source, tmp_path / "data")
        return change

    return run


def column(folder: Path, name: str = "sku") -> pl.Series:
    return manifest.read(folder / "data")["metadata"].struct.field(name)


def test_article_numbers_stay_text_when_the_first_letter_comes(tmp_path: Path, update) -> None:
    update([f"{i:05}" for i in range(24)])
    change = update([f"{i:05}" for i in range(23)] + ["A-17"])
    assert (change.relabelled, change.notes) == (1, ())
    assert set(column(tmp_path)) == {f"{i:05}" for i in range(23)} | {"A-17"}


def test_one_odd_row_is_told_and_does_not_retype_its_column(tmp_path: Path, update) -> None:
    update([str(i) for i in range(24)])
    change = update([str(i) for i in range(23)] + ["A-17"])
    assert change.relabelled == 1
    (note,) = change.notes
    assert "column 'sku' holds whole numbers; left empty: 1 of 24 values, e.g. 'A-17'" in note
    assert column(tmp_path).dtype == pl.Int64
    assert not update([str(i) for i in range(24)]).notes


def test_a_declared_type_holds_at_once(tmp_path: Path, update) -> None:
    update([str(i) for i in range(24)])
    assert update([str(i) for i in range(24)], sku="text").relabelled == 24
    assert column(tmp_path).dtype == pl.String
    update([f"{i:05}" for i in range(24)], sku="integer")
    assert column(tmp_path).sort().to_list() == list(range(24))
    update(["2026-01-31"] * 24, sku="date")
    assert column(tmp_path).dtype == pl.Date
    with pytest.raises(SourceError, match="no column 'sku' of yours; it has price"):
        update(["1"] * 24, "price", sku="text")


def test_a_column_that_comes_or_goes_changes_the_images_that_have_it(
    tmp_path: Path, update
) -> None:
    assert not update([""] * 24).relabelled
    change = update(["1"] * 12 + [""] * 12, "price")
    assert change.relabelled == 12
    assert change.notes == ("column 'sku' has gone from the list: filters on it will fail",)
    assert update(["1"] * 12 + [""] * 12, "cost").relabelled == 12


def test_types_without_a_list_are_refused() -> None:
    source = Source(name="photos", stamp=None, load=lambda: folder, types={"sku": "text"})
    folder = Listing(entries=[], count=0)
    with pytest.raises(SourceError, match="the source is no list"):
        settle_types(folder, source)
