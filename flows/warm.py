"""Libraries loaded once a pass over the pipeline, beside its first stages, not once a stage."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from flows.process import LIFELINE
from irgen import warm

FORKS = Path(__file__).with_name("forks.py")
LIBRARIES = (
    *("dvc.cli.parser", "dvc.repo.reproduce", "dvc.data_cloud", "dvc.lock", "dvc.rwlock"),
    *("scmrepo.git", "ruamel.yaml", "matplotlib.figure", "torch", "timm"),
)
SECONDS = 5.0  # to end in


@contextmanager
def libraries(root: Path, settings: Mapping[str, str]) -> Iterator[None]:
    """While the block runs, what it starts in ``root`` may be a fork of a process that has the
    libraries loaded, and is as soon as it has. ``settings`` are the environment of all of them.

    Nothing fails if there is no such process: it is not on Linux, or ``IRGEN_WARM`` is set (to
    ``off``, say).
    """
    if sys.platform != "linux" or warm.VARIABLE in os.environ:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="irgen-") as folder:  # a socket's path must be short
        place = str(Path(folder) / "warm")
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(LIFELINE), *command(place)],
            cwd=root,
            env=os.environ | dict(settings),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            process_group=0,
        )
        os.environ[warm.VARIABLE] = place
        try:
            yield
        finally:
            del os.environ[warm.VARIABLE]
            with suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(process.pid, signal.SIGTERM)
                process.wait(SECONDS)  # so that the time it took counts as this process's
            process.communicate()  # the lifeline is cut


def command(place: str) -> list[str]:
    """What loads the libraries and then serves at ``place``."""
    return [sys.executable, str(FORKS), place, *LIBRARIES]


def dvc(*arguments: str) -> list[str]:
    """A DVC command, by the process that has it loaded if there is one."""
    if warm.VARIABLE in os.environ:
        return [sys.executable, "-I", "-S", str(warm.__file__), "dvc", *arguments]
    return [sys.executable, "-m", "dvc", *arguments]
