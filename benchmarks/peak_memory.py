"""Watch the memory that a process alone holds: anonymous and shared pages, not those of its files.

The system takes pages of mapped files back when memory is short, so they end no process, while
``ru_maxrss`` counts them. Linux only. A second process looks 100 times a second, since a thread
would wait for what the watched one computes.
"""

import os
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SECONDS = 0.01  # between two looks
COUNTED = ("RssAnon", "RssShmem")  # lines of /proc/<pid>/status


class Peak:
    """``bytes``: the largest that was seen, once the watch has ended."""

    bytes = 0


@contextmanager
def watch_memory() -> Iterator[Peak]:
    """Watch this process until the block ends.

    >>> with watch_memory() as peak:
    ...     block = bytes(10_000_000)
    >>> peak.bytes > len(block)
    True
    """
    command, peak = [sys.executable, __file__, str(os.getpid())], Peak()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as watcher:
        assert watcher.stdout is not None, "its output is a pipe"
        watcher.stdout.readline()  # it has begun
        try:
            yield peak
        finally:
            printed, _ = watcher.communicate()
            peak.bytes = int(printed)


def read_held(process: int) -> int:
    """Return the bytes that a process alone holds now."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith(COUNTED))


def main() -> None:
    """Watch the process in the first argument until the input ends; print the peak."""
    process, peak = int(sys.argv[1]), 0
    print(flush=True)
    while True:
        ended = bool(select.select([sys.stdin], [], [], SECONDS)[0])
        peak = max(peak, read_held(process))
        if ended:
            break
    print(peak)


if __name__ == "__main__":
    main()
