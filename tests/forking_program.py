"""Start a script that forks processes to be killed: it prints `ready`, and ends with its input."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def start(script: Path, **environment: str) -> Iterator[subprocess.Popen]:
    """Yield the process of ``script``, on one thread, once it is ready."""
    settings = {"POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1"} | environment
    with subprocess.Popen(
        [sys.executable, str(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | settings,
    ) as running:
        assert running.stdout and running.stdin
        assert running.stdout.readline() == "ready\n"
        yield running
        running.stdin.close()
