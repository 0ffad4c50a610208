"""The copy of a project to experiment in: nothing is left of it, however its process ended."""

import signal
import subprocess
import sys

import pytest

from flows import workcopy

from .conftest import ROOT, Toy

KEEP = """
import sys, time
from pathlib import Path
from flows import workcopy
with workcopy.of(Path(sys.argv[1]), "compare-first"):
    print("made", flush=True)
    time.sleep(600)
"""


def copies(toy: Toy) -> list[str]:
    """What there is of copies, locks included."""
    return sorted(path.name for path in (toy.root / ".dvc" / "tmp" / "exps").glob("compare-*"))


@pytest.mark.slow
def test_a_copy_of_a_killed_process_goes_when_the_next_is_made_and_no_other_one_does(
    toy: Toy,
) -> None:
    command = [sys.executable, "-c", KEEP, str(toy.root)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "made\n"
            with workcopy.of(toy.root, "compare-second") as place:
                assert (place / "dvc.yaml").is_file()
                assert {"compare-first", "compare-second"} <= set(copies(toy))
            assert copies(toy) == ["compare-first", "compare-first.lock"]
        finally:
            process.send_signal(signal.SIGKILL)
    with workcopy.of(toy.root, "compare-third"):
        assert copies(toy) == ["compare-third", "compare-third.lock"]
    assert copies(toy) == []
