"""A command run by a process that has its libraries loaded already: ``warm.py dvc repro …``.

``IRGEN_WARM`` names the folder of the sockets of such processes (``flows/forks.py``), one a module
and named after it. One forks itself for each that asks; the fork joins this process's group, takes
over its files, folder and environment, and ends if this process does. Without one, or if it
refuses, the command starts as always. Imports nothing but the standard library, since what it
imports is paid for by every command.
"""

import json
import os
import signal
import socket
import sys
from contextlib import suppress
from io import BufferedReader

VARIABLE = "IRGEN_WARM"
PATIENCE_SECONDS = 2.0  # for an answer that takes a millisecond: else somebody stopped it
READY = b"r"


def run(module: str, arguments: list[str]) -> int | None:
    """The exit status of ``python -m module arguments``, 128 + number for a signal as shells do;
    None if no warm process took it, and nothing has been done."""
    place = os.environ.get(VARIABLE, "")
    if not place or not hasattr(socket, "AF_UNIX"):
        return None
    with socket.socket(socket.AF_UNIX) as line:
        try:
            line.settimeout(PATIENCE_SECONDS)
            line.connect(f"{place}/{module}")
            if line.recv(1) != READY:
                return None
            line.settimeout(None)
            _ask(line, module, arguments)
            answers = line.makefile("rb")
            word, _, number = answers.readline().partition(b" ")
        except OSError:
            return None
        with answers:
            return _status(int(number), answers) if word == b"began" else None


def _ask(line: socket.socket, module: str, arguments: list[str]) -> None:
    unseen = () if module == "dvc" else (VARIABLE,)  # it alone starts commands of its own
    request = {
        "module": module,
        "arguments": arguments,
        "folder": os.getcwd(),  # noqa: PTH109 – pathlib takes longer to import than to ask
        "group": os.getpgrp(),
        "environment": {name: each for name, each in os.environ.items() if name not in unseen},
    }
    socket.send_fds(line, [READY], [0, 1, 2])
    line.sendall(json.dumps(request).encode() + b"\n")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the fork gets it too, and answers to it


def _status(number: int, answers: BufferedReader) -> int:
    answer = b""
    with suppress(OSError):
        answer = answers.readline()
    if not answer:  # the warm process was killed: nobody sees to the fork any more
        with suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)
        return 128 + signal.SIGKILL
    status = int(answer.removeprefix(b"ended "))
    return status if status >= 0 else 128 - status


def main(module: str, *arguments: str) -> int:
    """Runs a module's command, warm if it can be; becomes the command itself otherwise."""
    status = run(module, list(arguments))
    if status is None:
        os.execv(sys.executable, [sys.executable, "-m", module, *arguments])
    return status


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
