"""Libraries loaded once a pass over the pipeline, beside its first stages, not once a stage."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from flows.process import LIFELINE
from irgen import warm

FORKS = Path(__file__).with_name("forks.py")
LIBRARIES = {  # of each module that commands are run by: DVC is ready long before torch is
    "dvc": (
        *("dvc.cli.parser", "dvc.repo.reproduce", "dvc.repo.datasets", "dvc.repo.plots"),
        *("dvc.data_cloud", "dvc.lock", "dvc.rwlock", "dvc.dirs"),
        *("configobj", "ruamel.yaml", "scmrepo.git", "tabulate", "flows.lockfile"),
    ),
    "irgen": ("numpy", "scipy.optimize", "torch", "timm", "matplotlib.figure"),
}
SECONDS = 5.0  # to end in


served: dict[str, set[str]] = {}  # by the folder of their sockets, modules that are, or soon


@contextmanager
def libraries(root: Path, settings: Mapping[str, str], *modules: str) -> Iterator[None]:
    """While the block runs, what it starts in ``root`` may be a fork of a process that has the
    libraries of its module loaded, and is as soon as it has. ``modules``: all if none is named;
    within such a block, those that it has not are added. ``settings`` are the environment of all.

    Nothing fails if there is no such process: it is not on Linux, or ``IRGEN_WARM`` is set (to
    ``off``, say).
    """
    outer = os.environ.get(warm.VARIABLE)
    if sys.platform != "linux" or not (outer is None or outer in served):
        yield
        return
    with ExitStack() as stack:
        if outer is None:  # a socket's path must be short
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="irgen-"))
            os.environ[warm.VARIABLE] = folder
            stack.callback(os.environ.pop, warm.VARIABLE)
            stack.callback(served.pop, folder)
        else:
            folder = outer
        there = served.setdefault(folder, set())
        new = [each for each in modules or LIBRARIES if each not in there]
        there.update(new)
        processes = [_started(root, settings, command(folder, each)) for each in new]
        try:
            yield
        finally:
            there.difference_update(new)
            _end(processes)


def _end(processes: "list[subprocess.Popen[bytes]]") -> None:
    for process in processes:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.wait(SECONDS)  # so that the time it took counts as this process's
        process.communicate()  # the lifeline is cut


def command(folder: str, module: str) -> list[str]:
    """What loads a module's libraries and then serves at its socket in ``folder``."""
    return [sys.executable, str(FORKS), str(Path(folder) / module), *LIBRARIES[module]]


def _started(
    root: Path, settings: Mapping[str, str], command: list[str]
) -> "subprocess.Popen[bytes]":
    """A process that ends when this one does."""
    return subprocess.Popen(
        [sys.executable, "-I", "-S", str(LIFELINE), *command],
        cwd=root,
        env=os.environ | dict(settings),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        process_group=0,
    )


def dvc(*arguments: str) -> list[str]:
    """A DVC command, by the process that has it loaded if there is one."""
    if warm.VARIABLE in os.environ:
        return [sys.executable, "-I", "-S", str(warm.__file__), "dvc", *arguments]
    return [sys.executable, "-m", "flows.lockfile", *arguments]
