"""A flipped bit in any store of a project is noticed before its content is used."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_no_flipped_bit_is_served(built, root: Path, tmp_path: Path) -> None:
    command = [sys.executable, "benchmarks/bit_flips.py", str(built[0]), "--flips", "8"]
    done = subprocess.run(
        [*command, "--results", str(tmp_path)],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    table = (tmp_path / "bit-flips.md").read_text()
    for store in ("image shards", "manifest", "features", "tokenizer", "cache: views"):
        assert f"\n| {store} " in table
