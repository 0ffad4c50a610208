"""A stage on a full disk says so, leaves what was there, and runs once there is room."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .. import small_disk
from . import conftest

ROOM = 16 * 1024  # bytes left


def files(folder: Path) -> dict[str, bytes]:
    return {name: data for name, data in conftest.files(folder).items() if name != "lock"}


@pytest.fixture
def full_disk(copy, tmp_path: Path) -> Iterator[Path]:
    """Yield the project on a disk of its own that a file named ballast fills."""
    disk = tmp_path / "disk"
    with small_disk.mount(disk, "64m"):
        shutil.copytree(copy[0], disk, dirs_exist_ok=True)
        small_disk.fill(disk, ROOM)
        yield disk


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["features", "index"])
def test_a_full_disk_under_a_stage_is_told_and_loses_nothing(full_disk: Path, stage, root) -> None:
    output = full_disk / "data" / stage
    before = files(output)
    command = [sys.executable, "-m", "irgen", stage, "--root", str(full_disk)]
    settings = os.environ | {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "OMP_NUM_THREADS": "1"}

    def run() -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            command, cwd=root, env=settings, capture_output=True, text=True, timeout=300
        )

    done = run()
    assert done.returncode == 2 and "no space left on the disk" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    assert files(output) == before
    assert not [path for path in full_disk.rglob("*.tmp") if path.parent.name == "data"]
    (full_disk / "ballast").unlink()
    done = run()
    assert done.returncode == 0, done.stderr
    assert files(output).keys() == before.keys()
