"""Start programs that run until a test ends them, and that never outlive the tests."""

import os
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from flows.process import LIFELINE


def find_free_port() -> int:
    """Return a port of loopback that nothing listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(
    command: Sequence[str], log: Path, environment: Mapping[str, str], cwd: Path | None = None
) -> subprocess.Popen[bytes]:
    """Start a program in a process group of its own. Its output is added to the file ``log``."""
    with log.open("a") as file:
        return subprocess.Popen(
            [*LIFELINE, *command],
            cwd=cwd,
            env=environment,
            stdin=subprocess.PIPE,  # the lifeline
            stdout=file,
            stderr=file,
            start_new_session=True,
        )


def end(process: subprocess.Popen[bytes]) -> None:
    """Let go of the program's lifeline, and wait until it has ended."""
    with suppress(BrokenPipeError):
        process.communicate(timeout=30)


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the program and all that it started, as a power cut would."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
