"""One writer an index: a lock that the operating system frees when its holder dies."""

import fcntl
import os
from pathlib import Path
from typing import TextIO

from irgen.errors import IndexingError


def take(path: Path) -> TextIO:
    """Locks the file ``path``, making it if need be, and notes this process's number in it; held
    until the file that is returned is closed, or the process has died.

    Raises IndexingError, naming the holder, if another writer has it, of this process or another.
    """
    while True:
        file = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = holding(path)
            file.close()
            raise IndexingError(
                f"{path.parent} has a writer already ({holder}): close that one first, or open the "
                "index for reading"
            ) from None
        if _is_still_at(path, file):
            break
        file.close()  # the folder was replaced in between
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file


def holding(path: Path) -> str:
    """Who holds, or last held, the lock.

    >>> holding(Path("/nowhere/lock"))
    'another process'
    """
    try:
        number = path.read_text(encoding="utf-8").strip()
    except OSError:
        number = ""
    return f"process {number}" if number.isdecimal() else "another process"


def _is_still_at(path: Path, file: TextIO) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False
