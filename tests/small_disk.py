"""A small disk that a test may fill."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def mount(folder: Path, size: str) -> Iterator[None]:
    """Mount a disk of ``size``, such as ``512k``, at ``folder`` while the block runs. Skip the test
    where mounting is not allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a full disk is tried on a mounted one, and mounting is not allowed here")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def resize(folder: Path, size: str) -> None:
    """Change the size of the disk at ``folder``."""
    subprocess.run(["mount", "-o", f"remount,size={size}", str(folder)], check=True)


def fill(folder: Path, room: int = 0) -> Path:
    """Fill the disk at ``folder`` but for ``room`` bytes; return the file to delete for more."""
    status, ballast = os.statvfs(folder), folder / "ballast"
    ballast.write_bytes(bytes(status.f_bavail * status.f_frsize - room))
    return ballast
