"""One at a time: a lock that dies with its holder, and word left for it."""

import subprocess
import sys
import threading
from pathlib import Path

from flows import lock
from flows.lock import Holder

from .conftest import ROOT, until

ME = Holder(flow="update", run="r2", process=2)
OTHER = Holder(flow="build", run="r1", process=1)


def test_the_second_is_told_who_was_first(tmp_path: Path) -> None:
    with lock.hold(tmp_path, OTHER, on_wait=None) as first:
        assert first.mine and first.other is None
        with lock.hold(tmp_path, ME, on_wait=None) as second:
            assert not second.mine and second.other == OTHER
    with lock.hold(tmp_path, ME, on_wait=None) as third:
        assert third.mine and third.other is None


def test_who_waits_gets_its_turn_and_says_once_whom_it_waits_for(
    tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(lock, "POLL_SECONDS", 0.05)
    waited_for: list[Holder | None] = []
    free = threading.Event()

    def hold() -> None:
        with lock.hold(tmp_path, OTHER, on_wait=None):
            free.wait(20)

    holder = threading.Thread(target=hold)
    holder.start()
    until((tmp_path / ".cache" / "flows" / "holder.json").exists, "no lock")
    threading.Timer(0.5, free.set).start()
    with lock.hold(tmp_path, ME, on_wait=waited_for.append) as turn:
        assert turn.mine and free.is_set()
    holder.join()
    assert waited_for == [OTHER]


def test_a_killed_holder_s_lock_is_free_and_its_run_is_known(tmp_path: Path) -> None:
    script = f"""
import time
from pathlib import Path
from flows import lock
with lock.hold(Path({str(tmp_path)!r}), lock.{OTHER!r}, on_wait=None) as turn:
    print("mine", turn.mine, flush=True)
    time.sleep(600)
"""
    holder = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None and b"mine True" in holder.stdout.readline()
        with lock.hold(tmp_path, ME, on_wait=None) as turn:
            assert not turn.mine and turn.other == OTHER
    finally:
        holder.kill()
        holder.wait()
    with lock.hold(tmp_path, ME, on_wait=None) as turn:
        assert turn.mine and turn.other == OTHER  # it never said that it was through
    with lock.hold(tmp_path, ME, on_wait=None) as turn:
        assert turn.other is None


def test_word_left_during_a_turn_is_taken_up_once(tmp_path: Path) -> None:
    with lock.hold(tmp_path, ME, on_wait=None):
        assert not lock.take_request(tmp_path)
        lock.request_update(tmp_path)
        lock.request_update(tmp_path)
    assert [lock.take_request(tmp_path), lock.take_request(tmp_path)] == [True, False]


def test_whether_it_is_free_is_known_without_taking_it(tmp_path: Path) -> None:
    assert lock.is_free(tmp_path)
    with lock.hold(tmp_path, ME, on_wait=None) as turn:
        assert turn.mine and not lock.is_free(tmp_path) and not lock.is_free(tmp_path, seconds=0.3)
    assert lock.is_free(tmp_path)
