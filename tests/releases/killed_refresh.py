"""A process that edits and refreshes a project's own index until it is killed.

Run as a program it reads lines of ``root first mode`` and forks a process for each, before anything
of torch or polars has run: a fork is safe and costs next to nothing. It prints its number, then how
it ended. A thread adds images from number ``first`` on, one after the other, and notes each as it
has returned. With the mode ``between`` the process kills itself between the two renames by which
the new index takes the place of the old one.
"""

import os
import signal
import sys
import threading
from pathlib import Path


def edit(root: Path, first: int, put) -> None:
    """Add images and note them, until the process ends."""
    from irgen.releases import own_index

    notes = os.open(root / "notes", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number in range(first, first + 10_000):
        with own_index.open_writer(root, wait=60) as index:
            put(index, {f"mine {number}": (f"content {number}", number)})
        os.write(notes, f"{number}\n".encode())


def live(root: Path, first: int, mode: str, put) -> None:
    """Edit and refresh at the same time; a minute if nobody kills this process."""
    from irgen.index import database, folder
    from irgen.releases import own_index

    os.fsync = lambda _: None  # a kill takes nothing back that the system has been given
    database.SYNCHRONOUS = "OFF"
    if mode == "between":
        rename = Path.rename

        def rename_and_die(self: Path, target: Path):
            rename(self, target)
            if self == root / "index":
                os.kill(os.getpid(), signal.SIGKILL)

        folder.Path.rename = rename_and_die
    threading.Thread(target=edit, args=(root, first, put), daemon=True).start()
    own_index.refresh(root)
    threading.Event().wait(60)


def main() -> None:
    """Fork a process for each line."""
    import plain_index  # it lies beside this script

    import irgen.index.index
    import irgen.releases.merged_index  # noqa: F401 – once, for all processes

    print("ready", flush=True)
    for line in sys.stdin:
        first, mode, root = line.rstrip("\n").split(" ", 2)
        process = os.fork()
        if not process:
            try:
                live(Path(root), int(first), mode, plain_index.put)
            finally:
                os._exit(1)
        print(process, flush=True)
        _, status = os.waitpid(process, 0)
        print(status, flush=True)


if __name__ == "__main__":
    main()
