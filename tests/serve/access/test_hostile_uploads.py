"""Damaged and hostile files by every route that takes one: the service answers, and goes on."""

import json
from collections.abc import Callable
from pathlib import Path

from irgen.index.index import Index
from irgen.releases import own_index

from ..conftest import Running


def test_no_file_stops_the_service_or_another_client(
    running, run_benchmark: Callable[..., str], tmp_path: Path
) -> None:
    """``benchmarks/hostile_uploads.py`` ends with an error for any answer of status 5xx."""
    arguments = ("--server", running.url, "--files", 300, "--results", tmp_path / "results.json")
    results = json.loads(run_benchmark("hostile_uploads", *arguments))
    assert results["failures"] == [] and sum(results["statuses"].values()) == 300
    assert results["statuses"]["200"] > 60 and results["statuses"]["400"] > 60
    assert results["searches_meanwhile"] > 3
    assert running.get("/readyz").status_code == 200


def test_no_file_that_is_added_damages_the_index(
    writable: Running, run_benchmark: Callable[..., str], tmp_path: Path
) -> None:
    arguments = ("--server", writable.url, "--files", 120, "--results", tmp_path / "results.json")
    results = json.loads(run_benchmark("hostile_uploads", *arguments, "--write"))
    assert results["failures"] == [] and sum(results["statuses"].values()) == 120
    total = writable.get("/v1/items").json()["total"]
    assert 40 < total <= 52
    with Index.open(own_index.default_folder(writable.root)) as index:
        assert len(index) == total
