"""A process that has libraries loaded and forks itself for whoever asks by a socket:
``python forks.py socket library …``. ``irgen/warm.py`` is who asks.

None of the stages' code is loaded before the fork, so that a fork runs it as it is then. No
thread may have been started by then either, but for OpenBLAS's, which ends its own before a fork;
and what libraries read from the environment when they are loaded must be as it was.
"""

import atexit
import gc
import json
import os
import runpy
import select
import signal
import socket
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

READY = b"r"
BLAS = ("numpy", "scipy.optimize")  # with an OpenBLAS each
AT_LOADING = ("PYTHON", "OMP_", "MKL_", "OPENBLAS_", "KMP_", "GOMP_", "TORCH", "LD_", "CUDA_")


def load(libraries: list[str]) -> None:
    """Imports what can be imported. Raises SystemExit if that started a thread, and OSError where
    the system does not let a process be waited for as ``keep`` does."""
    os.close(os.pidfd_open(os.getpid()))
    allowed = threads()
    for name in libraries:
        before = threads()
        with suppress(ImportError):
            import_module(name)
        if name in BLAS:
            allowed += threads() - before
    if threads() > allowed:
        raise SystemExit(f"a thread was started by one of {', '.join(libraries)}")
    gc.collect()
    gc.freeze()  # what is loaded is not gone through again in each fork


def threads() -> int:
    """Threads of this process, those of libraries included (Linux)."""
    return len(list(Path("/proc/self/task").iterdir()))


def serve(place: str) -> socket.socket:
    """Serves at ``place`` for ever. Returns in forks alone, with the line to who asks."""
    signal.signal(signal.SIGCHLD, reap)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(place)
        listener.listen(32)
        while True:
            line, _ = listener.accept()
            if not os.fork():
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                return line
            line.close()


def reap(*_: object) -> None:
    """Waits for forks that have ended, so that the time they took counts as this process's."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def receive(line: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """What is asked for, and the three standard files of who asks. Raises OSError or ValueError if
    that one has gone."""
    line.sendall(READY)
    _, files, _, _ = socket.recv_fds(line, 1, 3)
    with line.makefile("rb") as text:
        return json.loads(text.readline()), files


def keep(line: socket.socket, number: int) -> None:
    """Waits for a process to end and tells the status, negative for a signal; ends the process if
    nobody is there any more to be told."""
    ended = os.pidfd_open(number)
    ready, _, _ = select.select([line.fileno(), ended], [], [])
    if ended not in ready:  # who asked was killed
        os.kill(number, signal.SIGKILL)
    _, status = os.waitpid(number, 0)
    with suppress(OSError):
        line.sendall(f"ended {os.waitstatus_to_exitcode(status)}\n".encode())


def become(asked: dict[str, Any], files: list[int], loaded: dict[str, str]) -> None:
    """Takes the place of who asks: its group, folder, environment and files. ``loaded``: the
    environment that the libraries were loaded in. Raises OSError or ValueError if it cannot."""
    set_by_libraries = {name: os.environ[name] for name in os.environ.keys() - loaded.keys()}
    environment = set_by_libraries | asked["environment"]
    if at_loading(environment) != at_loading(set_by_libraries | loaded):
        raise ValueError("the libraries would be loaded in another way")
    os.setpgid(0, asked["group"])  # PermissionError if that is of another session
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(environment)
    for place, file in enumerate(files):
        os.dup2(file, place)
        os.close(file)


def at_loading(environment: dict[str, str]) -> dict[str, str]:
    """The variables that count when a library is loaded."""
    return {name: each for name, each in environment.items() if name.startswith(AT_LOADING)}


class Leaving:
    """How a fork ends: at once after all that is to be done at an end, since taking down what the
    libraries have set up takes half a second and is nothing to anybody."""

    def __init__(self) -> None:
        self.status: int | None = None  # None: as any process
        atexit.register(self.leave)  # before all others, so it is the last

    def leave(self) -> None:
        if self.status is not None:
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError, ValueError):
                    stream.flush()
            os._exit(self.status)

    def run(self, module: str) -> None:
        """Runs a module as ``python -m`` does; whatever it ends with, its status is known."""
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
            self.status = 0
        except SystemExit as end:
            self.status = end.code if isinstance(end.code, int) else int(end.code is not None)
            raise
        except Exception:
            self.status = 1
            raise


def main(place: str, *libraries: str) -> None:
    """Serves; each request has a process that runs what it asks for, as ``python -m`` would, and
    one that waits for that."""
    leaving = Leaving()
    sys.path[0] = str(Path.cwd())  # not this file's folder
    loaded = dict(os.environ)
    load(list(libraries))
    line = serve(place)
    try:
        asked, files = receive(line)
        if number := os.fork():
            for each in files:
                os.close(each)
            keep(line, number)
            os._exit(0)
        become(asked, files, loaded)
        line.sendall(f"began {os.getpid()}\n".encode())
    except (OSError, ValueError):
        os._exit(1)  # who asks is not told that it began, and begins by itself
    line.close()
    sys.argv = [asked["module"], *asked["arguments"]]
    sys.path[0] = asked["folder"]
    leaving.run(asked["module"])


if __name__ == "__main__":
    main(*sys.argv[1:])
