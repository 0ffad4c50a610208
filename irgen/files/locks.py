"""Lock files of processes, and DVC's lock file."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from irgen.files.atomic import write_bytes


def is_locked(path: Path) -> bool:
    """Tell whether a process holds the lock file ``path`` (``filelock.FileLock``).

    The probe is a shared lock, so two probes at a time do not disturb each other.
    """
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


@contextmanager
def announce_waiting(path: Path) -> Iterator[None]:
    """Let ``is_awaited`` be true of the file ``path`` during the block. Any number of processes and
    threads may wait."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


def is_awaited(path: Path) -> bool:
    """Tell whether somebody is in a block of ``announce_waiting``; False if that cannot be read."""
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # nobody has waited yet, or this process has too many files open
        return False
    return False


def mend_lock_file(path: Path, copy: Path) -> bool:
    """Copy DVC's lock file to ``copy`` if it is whole, else put the copy back; return whether the
    file was put back. Call it while no DVC runs.

    DVC writes its lock file in place. If it is killed meanwhile, the file is incomplete, and then
    no DVC command works. DVC finds what the copy lacks in its cache of runs. A file with the marks
    of a Git conflict is left alone.
    """
    text = path.read_text(encoding="utf-8") if path.exists() else None
    if text is None or "<<<<<<<" in text:
        return False
    if _is_whole(text):
        write_bytes(copy, text.encode())
        return False
    if copy.exists():
        write_bytes(path, copy.read_bytes())
    else:  # there was no lock file before
        path.unlink()
    return True


def _is_whole(text: str) -> bool:
    """Tell whether the text of a lock file was written to its end."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        stages = yaml.load(text, Loader=loader)["stages"]
        ended = text.endswith("\n") and not text.endswith(":\n")
        return ended and all("cmd" in stage for stage in stages.values())
    except (yaml.YAMLError, TypeError, KeyError, AttributeError):
        return False
