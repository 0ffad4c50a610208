"""The index benchmark runs from end to end, and its baseline is the same search as ours."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

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
def folder(tmp_path_factory: pytest.TempPathFactory, run_benchmark: Callable[..., str]) -> Path:
    """Run the benchmark of the index quickly, and return the folder of its results."""
    folder = tmp_path_factory.mktemp("benchmark")
    folders = ("--cache", folder / "cache", "--results", folder)
    printed = run_benchmark("index", "--quick", "--threads", 1, *folders)
    assert (folder / "index.md").read_text() in printed
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


def test_changes_one_by_one_are_measured(run_benchmark: Callable[..., str], tmp_path: Path) -> None:
    path = tmp_path / "table.md"
    printed = run_benchmark("single_changes", "--count", 20, "--results", path)
    table = path.read_text()
    assert table == printed
    assert [line.split("|")[2].strip() for line in table.splitlines()[2:]] == ["20", "10", "10"]


@pytest.mark.slow
def test_the_benchmark_of_encoding_prints_a_ratio_for_every_way(
    run_benchmark: Callable[..., str],
) -> None:
    network = ("--name", "resnet10t", "--size", 64)
    printed = run_benchmark("encoding", *network, "--images", 8, "--batch", 4, "--rounds", 1)
    ways = re.findall(r"^(.+): [\d.,]+ images/s, ratio [\d.]+, of processor time", printed, re.M)
    assert [way.split(", ")[1] for way in ways] == [
        *("forward pass alone", "from files", "array", "all kept", "none kept"),
        *("forward pass alone", "from files"),
    ]
    assert printed.count("on the processor alone at best") == 2
