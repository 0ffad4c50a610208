"""A refresh is killed at any moment: the old index or the new one is there, with every edit."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from irgen.releases import own_index

from .. import forking_program
from .plain_index import Image, create, put, read

SCRIPT = Path(__file__).with_name("killed_refresh.py")
LIVES = 24


@pytest.fixture(scope="module")
def program(root: Path) -> Iterator[subprocess.Popen]:
    """Start the program that forks processes, which the test kills."""
    with forking_program.start(SCRIPT, PYTHONPATH=str(root)) as running:
        yield running


def release(number: int) -> dict[str, Image]:
    """Return the images of the pipeline's index of this number; one image differs in each."""
    images: dict[str, Image] = {f"{n}": (f"{n} of {number}", number) for n in range(3000)}
    return images | {f"of {number}": ("new", number)}


def read_notes(root: Path) -> list[int]:
    path = root / "notes"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def live_and_die(program: subprocess.Popen, root: Path, first: int, mode: str, wait: float) -> None:
    """Let a process edit and refresh for a while, and kill it."""
    program.stdin.write(f"{first} {mode} {root}\n")
    program.stdin.flush()
    process = int(program.stdout.readline())
    if mode != "between":
        time.sleep(wait)
        os.kill(process, signal.SIGKILL)
    assert int(program.stdout.readline()) == signal.SIGKILL, "it was to go on until it was killed"


def check(root: Path, number: int, noted: list[int]) -> int:
    """Check that the index is complete, is of this release or the one before, and has every noted
    edit and at most one more. Return the number of its release."""
    folder = own_index.default_folder(root)
    assert folder == root / "index"
    images = read(folder)
    mine = {name: image for name, image in images.items() if name.startswith("mine")}
    assert {f"mine {n}" for n in noted} <= mine.keys() and len(mine) <= len(noted) + 1
    versions = {price for name, (_, price) in images.items() if name not in mine}
    (version,) = versions
    assert version in (number - 1, number)
    expected = release(version)
    expected.pop("7")
    assert {name: image for name, image in images.items() if name not in mine} == expected
    return version


@pytest.mark.slow
def test_a_refresh_that_is_killed_loses_no_edit_and_leaves_one_index(program, tmp_path):
    chance, reached = random.Random(5), set()
    create(tmp_path / "data" / "index", release(0), 0)
    with own_index.open_writer(tmp_path) as index:
        index.remove(["7"])
        put(index, {"mine 0": ("content 0", 0)})
    (tmp_path / "notes").write_text("0\n")
    for number in range(1, LIVES + 1):
        create(tmp_path / "data" / "index", release(number), number)
        mode = "between" if number % 6 == 0 else "any"
        first = max(read_notes(tmp_path)) + 2  # the one after it may be there, too
        live_and_die(program, tmp_path, first, mode, chance.uniform(0, 1.2))
        noted = read_notes(tmp_path)
        reached.add((mode, check_all(tmp_path, number, noted)))
        own_index.refresh(tmp_path)
        assert check_all(tmp_path, number, noted) == 0
        assert not list(tmp_path.glob(".index*")), "nothing is left beside it"
        sync_notes(tmp_path)
    assert ("between", 1) in reached and {("any", 0), ("any", 1)} <= reached


def check_all(root: Path, number: int, noted: list[int]) -> int:
    """Return how many releases the index is behind."""
    return number - check(root, number, noted)


def sync_notes(root: Path) -> None:
    """Note the edit that was made but not noted when the process was killed."""
    mine = [int(name.split()[1]) for name in read(root / "index") if name.startswith("mine")]
    (root / "notes").write_text("".join(f"{number}\n" for number in sorted(mine)))
