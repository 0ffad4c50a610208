"""What the served index gains, on one set and on all."""

import json
from dataclasses import asdict
from pathlib import Path

from irgen.report.comparison import TITLES
from irgen.study import gains
from irgen.study.plan import TABLES
from irgen.study.tables import BETTER, WORSE

from .test_tables import result

METHODS = {"brute_force_tuned": 0.1, "classify_then_search": 0.3, "index": 0.2}


def test_the_index_stands_beside_brute_force_and_classify_then_search() -> None:
    (table,) = gains.build_gains([result("plain", seed, METHODS) for seed in range(3)])
    assert table.columns == ("P@1", "P@10", "P@20", "mAP@R", "hit@10")
    above, below = table.rows
    assert [row.title for row in table.rows] == [
        TITLES["brute_force_tuned"],
        TITLES["classify_then_search"],
    ]
    assert all(cell.text == "+0.100 (+0.100 to +0.100)" for cell in above.cells)
    assert {cell.mark for cell in above.cells} == {BETTER}
    assert {cell.mark for cell in below.cells} == {WORSE}


def test_without_an_index_there_are_no_gains() -> None:
    assert gains.build_gains([result("plain", 0, {"brute_force_tuned": 0.1})]) == []


def test_gains_of_all_sets_that_have_tables_stand_side_by_side(tmp_path: Path) -> None:
    tables = gains.build_gains([result("plain", 0, METHODS)])
    (tmp_path / TABLES / "photos").mkdir(parents=True)
    path = tmp_path / TABLES / "photos" / "comparison.json"
    path.write_text(json.dumps([asdict(table) for table in tables]))
    text = gains.write_summary(tmp_path, ["drawings", "photos"])
    assert "drawings" not in text and text.count("| photos") == 2
    assert f"+0.100 (+0.100 to +0.100) {BETTER}" in text
    assert (tmp_path / TABLES / "gains.md").read_text() == text
