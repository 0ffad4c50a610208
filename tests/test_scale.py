"""The benchmark of growing catalogues runs from end to end."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

STAGES = ("download", "download, unchanged", "catalog", "features", "pairs", "codebooks")
STAGES += ("identifiers", "trie", "retriever", "index", "search", "evaluate", "drift", "report")


@pytest.mark.slow
def test_each_stage_is_measured_at_each_size_and_older_sizes_stay(
    tmp_path: Path, run_benchmark: Callable[..., str]
) -> None:
    folders = ("--root", tmp_path, "--results", tmp_path, "--plot", tmp_path / "scale.png")
    run_benchmark("scale", "--rows", 1000, *folders)
    again = STAGES[:3]
    printed = run_benchmark("scale", "--rows", 2000, "--stages", *again, *folders)
    results = json.loads((tmp_path / "scale.json").read_text())["stages"]
    measured = [(row["stage"], row["rows"]) for row in results]
    assert measured == [(name, 1000) for name in STAGES] + [(name, 2000) for name in again]
    assert all(row["seconds"] > 0 and row["peak_bytes"] > 0 for row in results)
    written = {row["stage"] for row in results if row["disk_bytes"] > 0}
    assert written == {*STAGES} - {"download, unchanged", "search"}
    assert {row["stage"]: row["recall"] for row in results if row["recall"]} == {"pairs": 1.0}
    table = (tmp_path / "scale.md").read_text()
    assert table in printed
    assert "10,000 (extrapolated)" in table
    assert (tmp_path / "scale.png").stat().st_size
    assert not list(tmp_path.glob("scale-*"))


@pytest.mark.slow
def test_trie_index_and_search_are_measured_on_made_up_codes_alone(
    tmp_path: Path, run_benchmark: Callable[..., str]
) -> None:
    folders = ("--root", tmp_path, "--results", tmp_path, "--plot", tmp_path / "scale.png")
    run_benchmark("scale", "--rows", 1000, "--stages", "trie", "index", "search", *folders)
    trie, index, search = json.loads((tmp_path / "scale.json").read_text())["stages"]
    assert trie["disk_bytes"] > 1000 * 4 and index["disk_bytes"] > 1000 * 512
    assert search["disk_bytes"] == 0 and search["single_ms"] > search["batch_ms"] > 0
