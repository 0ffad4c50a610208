"""Damaged image files are read or rejected; they end no process, and they eat no memory."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_mutated_files_of_every_kind_are_read_or_rejected(tmp_path: Path) -> None:
    command = [sys.executable, "benchmarks/mutations.py", "--files", "600"]
    command += ["--results", str(tmp_path / "results.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["read"] + results["rejected"] == 600
    assert results["read"] > 100 and results["peak_mb"] < 1000
