"""A flipped bit in any store of a project is noticed before its content is used."""

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.mark.slow
def test_no_flipped_bit_is_served(built, run_benchmark: Callable[..., str], tmp_path: Path) -> None:
    run_benchmark("bit_flips", built[0], "--flips", 8, "--results", tmp_path, timeout=900)
    table = (tmp_path / "bit-flips.md").read_text()
    for store in ("image shards", "manifest", "features", "tokenizer", "cache: views"):
        assert f"\n| {store} " in table
