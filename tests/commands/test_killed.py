"""Commands cut short: what was acknowledged stays, and the index can be used."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from irgen.index.index import Index

IMAGES = 2500  # ten batches


def start(root: Path, *arguments: str, **options) -> subprocess.Popen:
    """Start a command in a process of its own."""
    settings = {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "irgen", *arguments],
        env=os.environ | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


@pytest.fixture
def many_ids(project: Path, png) -> list[str]:
    """Write many images below ``new``, and return their ids."""
    (project / "new").mkdir()
    names = [f"new/{number:04d}.png" for number in range(IMAGES)]
    for number, name in enumerate(names):
        (project / name).write_bytes(png(1000 + number))
    return names


def cut_short(process: subprocess.Popen, folder: Path, how: signal.Signals) -> set[str]:
    """End an add by a signal once a reader has seen some of its images; return these."""
    deadline = time.monotonic() + 120
    while not (folder / "index.json").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    with Index.open(folder) as reader:
        while len(reader) == 40:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.005)
            reader.refresh()
        seen = ids(reader)
    process.send_signal(how)
    return seen


def ids(index: Index) -> set[str]:
    return set(index.view.all_ids())


@pytest.mark.slow
def test_a_killed_add_loses_nothing_that_was_seen_and_is_run_again(project, root, many_ids, run_ok):
    process = start(root, "add", "new")
    seen = cut_short(process, project / "index", signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL
    assert "every file is as it was written" in run_ok("info", "--verify")
    with Index.open(project / "index") as index:
        left = ids(index)
    assert seen <= left and 40 < len(left) < 40 + IMAGES
    name = many_ids[0]
    (answer,) = json.loads(run_ok("search", name, "--allow", f"id = '{name}'", "--json"))
    assert [hit["id"] for hit in answer["hits"]] == [name]
    added = IMAGES + 40 - len(left)
    assert run_ok("add", "new", "--skip-known") == (
        f"{added:,} images added; {len(left) - 40:,} left out, known already. index holds "
        f"{IMAGES + 40:,} now.\n"
    )
    with Index.open(project / "index") as index:
        assert ids(index) == left | set(many_ids)


@pytest.mark.slow
def test_ctrl_c_keeps_what_was_added_and_says_how_much(project, root, many_ids):
    process = start(root, "add", "new", "--upsert")
    seen = cut_short(process, project / "index", signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    lines = err.splitlines()
    assert lines[-1] == "irgen add: interrupted" and "Traceback" not in err
    with Index.open(project / "index", writable=True) as index:  # the lock is free
        left = ids(index)
    assert seen <= left
    count = f"{len(left) - 40:,} images added before it ended"
    assert lines[-2] == f"irgen add: {count}; repeat with --upsert to add the rest"


@pytest.mark.slow
@pytest.mark.parametrize("k", [1, 40])  # less, and more than is kept back before it is written
def test_output_that_nobody_reads_ends_the_search_quietly(project, root, k):
    process = start(root, "search", "photos/003.png", "-k", str(k), "--json")
    process.stdout.close()
    assert process.wait(120) == 141
    assert process.stderr.read() == ""
