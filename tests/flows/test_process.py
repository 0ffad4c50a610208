"""A command in a group of its own: streamed, timed, and never left behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flows import process

from .conftest import ROOT, alive, until

PYTHON = [sys.executable, "-u", "-c"]
PARENT_AND_CHILD = """
import os, pathlib, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
pathlib.Path("pids").write_text(f"{os.getpid()} {child.pid}")
time.sleep(600)
"""


def pids(folder: Path) -> list[int]:
    path = folder / "pids"
    until(lambda: path.exists() and path.read_text(), "the command did not start")
    return [int(each) for each in path.read_text().split()]


def test_lines_are_handed_on_as_they_come(tmp_path: Path) -> None:
    script = """
import pathlib, time
print("one")
while not pathlib.Path("seen").exists():
    time.sleep(0.05)
print("two")
"""
    ended = process.run(
        [*PYTHON, script],
        root=tmp_path,
        log=lambda line: (tmp_path / "seen").touch(),
        timeout=300,
    )
    assert ended.lines == ("one", "two") and ended.status == 0 and not ended.timed_out


def test_a_secret_is_not_handed_on(tmp_path: Path) -> None:
    said: list[str] = []
    process.run(
        [*PYTHON, "print('to https://me:secret@host/x')"],
        root=tmp_path,
        log=said.append,
        timeout=300,
    )
    assert said == ["to https://***@host/x"]


def test_the_status_is_the_command_s(tmp_path: Path) -> None:
    ended = process.run([*PYTHON, "import sys; sys.exit(7)"], root=tmp_path, log=print, timeout=30)
    assert ended.status == 7
    ended = process.run(
        [*PYTHON, "import os; os.kill(os.getpid(), 9)"], root=tmp_path, log=print, timeout=30
    )
    assert ended.status == 128 + signal.SIGKILL


@pytest.mark.slow
def test_a_timeout_ends_the_whole_group_even_if_it_will_not_go(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(process, "GRACE_SECONDS", 0.5)
    ended = process.run([*PYTHON, PARENT_AND_CHILD], root=tmp_path, log=print, timeout=10)
    assert ended.timed_out
    until(lambda: not any(map(alive, pids(tmp_path))), "the group lives on")


def test_what_a_command_leaves_behind_is_ended(tmp_path: Path) -> None:
    leaving = PARENT_AND_CHILD.removesuffix("time.sleep(600)\n")
    ended = process.run([*PYTHON, leaving], root=tmp_path, log=print, timeout=60)
    assert ended.status == 0
    until(lambda: not any(map(alive, pids(tmp_path))), "the child lives on")


def test_if_the_asking_process_is_killed_so_is_the_group(tmp_path: Path) -> None:
    asking = f"""
from pathlib import Path
from flows import process
process.run({[*PYTHON, PARENT_AND_CHILD]!r}, root=Path({str(tmp_path)!r}), log=print, timeout=600)
"""
    asker = subprocess.Popen(
        [*PYTHON, asking], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    try:
        children = pids(tmp_path)
        assert all(map(alive, children))
    finally:
        asker.kill()
        asker.wait()
    until(lambda: not any(map(alive, children)), "the command outlived who asked for it")
