"""A command in a process group of its own: its lines as they come, and no part of it left over."""

import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from irgen.errors import redact

LIFELINE = Path(__file__).with_name("lifeline.py")
GRACE_SECONDS = 5.0  # between asking a group to end and killing it


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a command ended: its exit status, its lines without secrets, whether it was stopped for
    taking too long."""

    status: int
    lines: tuple[str, ...]
    timed_out: bool


def run(
    command: list[str],
    *,
    root: Path,
    tell: Callable[[str], None],
    timeout: float,
    settings: Mapping[str, str] | None = None,
    begun: Callable[[int], None] = lambda group: None,
) -> Ended:
    """Runs ``command`` in ``root`` and hands each line it prints to ``tell``, as it comes.

    After ``timeout`` seconds its process group is ended, by SIGKILL if it does not go. If this
    process dies, however it does, the group is killed at once: nothing goes on writing below
    ``root`` unseen. ``settings`` are added to the environment. ``begun`` is told the number of the
    group.
    """
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", str(LIFELINE), *command],
        cwd=root,
        env=os.environ | dict(settings or {}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        process_group=0,
    )
    begun(process.pid)
    late = threading.Event()
    overseer = threading.Thread(target=_oversee, args=(process, timeout, late), daemon=True)
    overseer.start()
    lines = []
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if text := redact(line.rstrip()):
                lines.append(text)
                tell(text)
    finally:
        if sys.exc_info()[0] is not None:  # interrupted
            _signal(process, signal.SIGKILL)
        overseer.join()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
    return Ended(status=process.returncode, lines=tuple(lines), timed_out=late.is_set())


def _oversee(process: "subprocess.Popen[str]", timeout: float, late: threading.Event) -> None:
    """Waits for the command to end, or ends it; then ends what it left behind, which might hold
    its output open."""
    try:
        _wait(process, timeout)
    except subprocess.TimeoutExpired:
        late.set()
        _signal(process, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_SECONDS)
    _signal(process, signal.SIGKILL)
    process.wait()


def _wait(process: "subprocess.Popen[str]", seconds: float) -> None:
    """As ``process.wait``, which looks twenty times a second; told at once where Linux can tell."""
    try:
        ended = os.pidfd_open(process.pid)
    except (AttributeError, OSError):  # another system, or one that does not allow it
        process.wait(seconds)
        return
    try:
        poll = select.poll()
        poll.register(ended, select.POLLIN)
        if not poll.poll(1000 * seconds):
            raise subprocess.TimeoutExpired(process.args, seconds)
    finally:
        os.close(ended)
    process.wait()


def _signal(process: "subprocess.Popen[str]", number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):  # on a Mac, a group of zombies: permission
        os.killpg(process.pid, number)
