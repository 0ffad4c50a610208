"""A service is killed while clients change the index: what it acknowledged is there, and nothing is
half there. IRGEN_TEST_KILLS=50 kills it more often than by default."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from irgen.catalog.uploads import read_upload
from irgen.index.index import Index
from irgen.releases import own_index

from ... import forking_program
from ...waiting import wait_until
from . import editors
from .editors import Editor

KILLS = int(os.environ.get("IRGEN_TEST_KILLS", "20"))
EDITORS = 6


@pytest.fixture(scope="module")
def program(root: Path) -> Iterator[subprocess.Popen]:
    """Start the program that forks services."""
    script = Path(__file__).with_name("killed_service.py")
    with forking_program.start(script, PYTHONPATH=str(root)) as running:
        yield running


def start_service(program: subprocess.Popen, root: Path) -> tuple[int, str]:
    """Start a service; give its process number and address once it answers."""
    program.stdin.write(f"{root}\n")
    program.stdin.flush()
    process = int(program.stdout.readline())
    url = program.stdout.readline().split()[1]
    wait_until(lambda: httpx.get(f"{url}/readyz", timeout=60).status_code == 200)
    return process, url


@pytest.mark.slow
def test_what_a_killed_service_acknowledged_is_there_and_nothing_is_half_there(
    tmp_path, make_project, program, png
):
    root, chance = make_project(tmp_path), random.Random(1)
    people = [Editor(f"editor{number}", png) for number in range(EDITORS)]
    changes_cut = 0
    for _ in range(KILLS):
        process, url = start_service(program, root)
        threads, _ = editors.start(people, url)
        time.sleep(chance.uniform(0, 1.5))
        os.kill(process, signal.SIGKILL)
        for thread in threads:
            thread.join(60)
        assert int(program.stdout.readline()) == signal.SIGKILL, "it was to go on until then"
        changes_cut += sum(editor.pending is not None for editor in people)
        with Index.open(own_index.default_folder(root)) as index:
            index.verify()
            table = index.view.take(index.view.snapshot.alive_rows().numpy())
        assert len(table.filter(~table["id"].str.starts_with("editor"))) == 40
        prices = dict(zip(table["id"], table["price"], strict=True))
        for editor in people:
            editor.settle(prices)
        added = table.filter(table["id"].str.starts_with("editor"))
        assert all(read_upload(root, sha256) is not None for sha256 in added["sha256"])
    assert sum(editor.done for editor in people) > KILLS, "the editors got something done"
    assert changes_cut > KILLS / 2, "they were cut short"
