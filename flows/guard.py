"""One at a time: the flow that may change the project, held by a lock that dies with its process.

Prefect's own concurrency limit is not used for this: its slots are leases in the server's memory,
so that a restart of the server kills the run that holds one, and leaves the slot taken.
"""

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

from flows.project import memory

POLL_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class Holder:
    """The flow run that holds the project, or held it last."""

    flow: str
    run: str
    name: str
    process: int

    def __str__(self) -> str:
        return f"{self.flow} {self.name!r} (flow run {self.run}, process {self.process})"


@dataclass(frozen=True, kw_only=True)
class Turn:
    """``mine``: the project is ours. ``other``: who holds it, or, if it is ours, who was killed
    while holding it."""

    mine: bool
    other: Holder | None


@contextmanager
def turn(root: Path, me: Holder, *, wait: Callable[[Holder | None], None] | None) -> Iterator[Turn]:
    """Holds the project while the block runs, if it can be had.

    ``wait`` is called once with the holder when there is one, and then we wait for it to end;
    without ``wait`` we do not, and the turn is not ours.
    """
    path = memory(root) / "lock"
    with path.open("a+", encoding="utf-8") as file:
        told = False
        while not _take(file):
            if wait is None:
                yield Turn(mine=False, other=_read(path))
                return
            if not told:
                wait(_read(path))
                told = True
            time.sleep(POLL_SECONDS)
        killed = _read(path)
        _write(file, json.dumps(asdict(me)))
        try:
            yield Turn(mine=True, other=killed)
        finally:
            _write(file, "")


def free(root: Path, *, seconds: float = 0.0) -> bool:
    """Whether nobody holds the project, or stops doing so within ``seconds``."""
    deadline = time.monotonic() + seconds
    with (memory(root) / "lock").open("a+", encoding="utf-8") as file:
        while not _take(file):
            if time.monotonic() >= deadline:
                return False
            time.sleep(POLL_SECONDS / 10)
        return True


def ask(root: Path) -> None:
    """Leaves word for the holder that there is something to look at after it."""
    _asked(root).touch()


def asked(root: Path) -> bool:
    """Whether word was left; it is taken up."""
    try:
        _asked(root).unlink()
    except FileNotFoundError:
        return False
    return True


def _asked(root: Path) -> Path:
    return memory(root) / "asked"


def _take(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(path: Path) -> Holder | None:
    """Who is noted in the lock; None if nobody is, or the note is just being written."""
    with suppress(OSError, ValueError, TypeError):
        return Holder(**json.loads(path.read_text(encoding="utf-8")))
    return None


def _write(file: TextIO, text: str) -> None:
    file.truncate(0)
    file.write(text)
    file.flush()
    os.fsync(file.fileno())
