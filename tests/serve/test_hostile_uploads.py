"""Damaged and hostile files by every route that takes one: the service answers, and goes on."""

import json
from collections.abc import Callable
from pathlib import Path


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
