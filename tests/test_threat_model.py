"""The threat model names tests that exist, and every defence has one."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs" / "explanation" / "threat-model.md").read_text()


def test_every_test_that_the_threat_model_names_exists() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    named = set(re.findall(r"`(test_\w+)`", TEXT))
    assert len(named) > 40
    assert not {name for name in named if f"def {name}(" not in sources}


def test_every_defence_has_a_test_that_attacks_it() -> None:
    tables = re.findall(r"\| threat \| defence \| tests \|\n\|[-|]+\n((?:\|.*\n)+)", TEXT)
    rows = [row for table in tables for row in table.splitlines()]
    assert len(tables) >= 6 and len(rows) > 25
    assert not [row for row in rows if "`test_" not in row.rpartition("|")[0].rpartition("|")[2]]
