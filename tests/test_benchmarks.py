"""The index benchmark runs from end to end, and its baseline is the same search as ours."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BARS = (
    "build the trie",
    "trie",
    "open, cold",
    "cost at",
    "trie and beams beside the decoder's steps (batch 64",
    "trie and beams beside the decoder's steps (alone",
    "faster than brute-force search of faiss (batch 64",
    "faster than brute-force search of faiss (alone",
    "faster than brute-force search of irgen (batch 64",
    "faster than brute-force search of irgen (alone",
    "faster than the published search (beam 30, ours batch 64)",
    "faster than the published search (beam 30, ours alone)",
    "add 1,000",
    "remove 1,000",
    "search slowed by",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a quick run wrote."""
    folder = tmp_path_factory.mktemp("benchmark")
    command = [sys.executable, "benchmarks/index.py", "--quick", "--threads", "1"]
    command += ["--cache", str(folder / "cache"), "--results", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (folder / "index.md").read_text() in done.stdout
    return folder


@pytest.fixture(scope="module")
def results(folder: Path) -> dict:
    return json.loads((folder / "index.json").read_text())


@pytest.mark.slow
def test_the_tables_hold_every_row(folder: Path, results: dict) -> None:
    ways = {(r["size"], r["precision"], r["batch"], r["beams"]) for r in results["search"]}
    small, large = results["sizes"]
    sizes = [(small, "fp32"), (large, "fp32"), (large, "bf16"), (large, "int8")]
    assert ways == {(*s, batch, w) for s in sizes for batch in (1, 64) for w in (1, 10, 30)}
    for row in results["search"]:
        assert row["parts"].keys() == {"read", "steps", "trie", "candidates"}
    others = [(r["size"], r["method"].split(" (")[0], r["batch"]) for r in results["others"]]
    methods = ("brute-force search", "HNSW", "IVF-PQ")
    assert others == [(s, m, b) for s in (small, large) for m in methods for b in (1, 64)]
    for part in ("codes", "build", "live"):
        assert len(results[part]) == 2
    text = (folder / "index.md").read_text()
    for bar in BARS:
        assert f"\n| {bar}" in text
    assert (folder / "index.svg").stat().st_size and (folder / "index.png").stat().st_size


@pytest.mark.slow
def test_the_published_search_writes_the_same_codes_as_ours(results: dict) -> None:
    assert [(r["size"], r["beams"]) for r in results["published"]] == [
        (size, beams) for size in results["sizes"] for beams in (10, 30)
    ]
    assert all(row["agrees"] for row in results["published"])


@pytest.mark.slow
def test_brute_force_finds_all_and_nothing_finds_more(results: dict) -> None:
    for row in results["others"]:
        assert 0 < row["recall"] <= 1
        assert row["recall"] == 1 or "brute" not in row["method"]


def test_changes_one_by_one_are_measured(tmp_path: Path) -> None:
    command = [sys.executable, "benchmarks/single_changes.py", "--count", "20"]
    done = subprocess.run(
        [*command, "--results", str(tmp_path / "table.md")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    table = (tmp_path / "table.md").read_text()
    assert table == done.stdout
    assert [line.split("|")[2].strip() for line in table.splitlines()[2:]] == ["20", "10", "10"]
