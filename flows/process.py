"""Run a command in its own process group: stream its lines, and leave no process of it behind.

``python process.py command …`` runs a command that ends with its parent process. Standard input is
the lifeline: only the parent holds the other end, so it closes when the parent ends, even by
SIGKILL; then the whole process group is killed. Started by its path, this file imports nothing but
the standard library.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

LIFELINE = [sys.executable, "-I", "-S", str(Path(__file__).resolve())]
GRACE_SECONDS = 5.0  # between SIGTERM to a group and SIGKILL


@dataclass(frozen=True, kw_only=True)
class CommandResult:
    """Result of a command: exit status, output lines without secrets, whether it timed out."""

    status: int
    lines: tuple[str, ...]
    timed_out: bool


def run(
    command: list[str],
    *,
    root: Path,
    log: Callable[[str], None],
    timeout: float,
    settings: Mapping[str, str] | None = None,
) -> CommandResult:
    """Run ``command`` in ``root`` and pass each line it prints to ``log`` at once.

    After ``timeout`` seconds its process group gets SIGTERM, then SIGKILL. If this process dies,
    the group is killed at once, so that nothing goes on writing below ``root``. ``settings`` are
    added to the environment.
    """
    from irgen.errors import redact  # not for the lifeline

    process = subprocess.Popen(
        [*LIFELINE, *command],
        cwd=root,
        env=os.environ | dict(settings or {}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,  # no terminal to ask for a password at
    )
    late = threading.Event()
    overseer = threading.Thread(target=_oversee, args=(process, timeout, late), daemon=True)
    overseer.start()
    lines = []
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if text := redact(line.rstrip()):
                lines.append(text)
                log(text)
    finally:
        if sys.exc_info()[0] is not None:  # interrupted
            _signal(process, signal.SIGKILL)
        overseer.join()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
    return CommandResult(status=process.returncode, lines=tuple(lines), timed_out=late.is_set())


def _oversee(process: "subprocess.Popen[str]", timeout: float, late: threading.Event) -> None:
    """Wait for the command, or end it after the timeout; then kill its remaining processes, which
    may hold its output open."""
    try:
        process.wait(timeout)
    except subprocess.TimeoutExpired:
        late.set()
        _signal(process, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_SECONDS)
    _signal(process, signal.SIGKILL)
    process.wait()


def _signal(process: "subprocess.Popen[str]", number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):  # on a Mac, a group of zombies: permission
        os.killpg(process.pid, number)


def _kill_group_at_end_of_input() -> None:
    while os.read(0, 4096):
        pass
    os.killpg(os.getpgid(0), signal.SIGKILL)


def main(command: list[str]) -> int:
    """Run the command and return its exit status, 128 + number for a signal as shells do.

    The command handles a SIGTERM to the group; this process ignores it.
    """
    signal.signal(signal.SIGTERM, lambda *_: None)
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as child:
        threading.Thread(target=_kill_group_at_end_of_input, daemon=True).start()
        status = child.wait()
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    os._exit(main(sys.argv[1:]))  # the thread still reads
