"""Flows on a machine that reboots, on a full disk, and of a user who may not write."""

import os
import signal
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from flows.build import build

from .. import small_disk
from .conftest import ROOT, PrefectServer, Toy, until
from .test_build import outcomes, states

pytestmark = pytest.mark.slow

BUILD = "from flows.build import build; build({root!r})"


def test_a_machine_that_reboots_in_the_middle_goes_on_where_it_was(
    prefect_server: PrefectServer, toy: Toy
) -> None:
    start_time = datetime.now(UTC)
    toy.fault("right", "sleep")
    script = BUILD.format(root=str(toy.root))
    running = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, start_new_session=True)
    children = toy.root / "children"
    until(lambda: children.exists() and children.read_text(), "the stage did not start")
    prefect_server.kill()
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    toy.ran()

    prefect_server.start()
    toy.mend("right")
    assert build(str(toy.root), return_state=True).name == "Built"
    assert "first" not in toy.ran() and outcomes(prefect_server)["first"] == "skipped"
    crashed = [
        message for _, state, message in states(prefect_server, start_time) if state == "Crashed"
    ]
    assert len(crashed) == 1 and "its process was killed" in crashed[0]


def test_a_disk_without_room_for_the_flows_notes_is_told_and_the_next_run_goes_on(
    prefect_server: PrefectServer, toy: Toy
) -> None:
    notes = toy.root / ".cache" / "flows"
    with small_disk.mount(notes, "16k"):
        with (notes / "ballast").open("wb", buffering=0) as file, pytest.raises(OSError):
            while True:
                file.write(bytes(4096))
        state = build(str(toy.root), return_state=True)
        assert state.is_failed() and "no space left on the disk" in state.message
        assert toy.ran() == []
    assert build(str(toy.root), return_state=True).name == "Built"


def test_a_second_user_who_may_not_write_is_told_whose_project_it_is(
    prefect_server: PrefectServer, toy: Toy
) -> None:
    """Root without its privileges is a user like any other to a project of somebody else's."""
    notes = toy.root / ".cache" / "flows"
    notes.mkdir(parents=True)
    (notes / "lock").touch()
    try:
        for path in (toy.root, *toy.root.rglob("*")):
            os.chown(path, 12345, 12345, follow_symlinks=False)
    except PermissionError:
        pytest.skip("only root may give files away")
    drop = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    if subprocess.run([*drop, "true"], capture_output=True).returncode:
        pytest.skip("privileges cannot be dropped here")
    script = BUILD.format(root=str(toy.root))
    done = subprocess.run(
        [*drop, sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode and "run as the user who owns the project" in done.stderr, done.stderr
    assert toy.ran() == []
