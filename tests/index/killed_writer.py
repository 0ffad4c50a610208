"""A writer that is killed or interrupted: what it does follows from a seed, and it notes what it
did.

Run as a program it reads lines of ``seed folder first`` and forks for each a writer that goes on
with operation ``first`` until it is killed; before anything of torch or polars has run, so that a
fork is safe and costs next to nothing. It prints the writer's process number, then that it ended.
"""

import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

INTERRUPTED = threading.Event()
NAMES = [f"{'image ' * (n % 3)}{n}" for n in range(40)]


def operation(seed: int, number: int, alive: Iterable[str]) -> tuple[str, list[str]]:
    """Draw the operation of this number, and its ids."""
    chance = random.Random(f"{seed} {number}")
    present = sorted(alive)
    absent = sorted(set(NAMES) - set(present))
    name = chance.choice(["add", "add", "upsert", "remove", "remove", "compact", "beside", "save"])
    pool = {"add": absent, "upsert": NAMES, "remove": present}.get(name, [])
    return name, chance.sample(pool, min(len(pool), chance.randint(1, 6)))


def after(alive: dict[str, int], number: int, name: str, ids: list[str]) -> dict[str, int]:
    """Return the version of each image that is alive after the operation."""
    if name == "remove":
        return {i: version for i, version in alive.items() if i not in ids}
    return alive | dict.fromkeys(ids, number) if name in ("add", "upsert") else alive


def interrupt(*_: object) -> None:
    """Raise as Ctrl-C does. Some libraries turn this into other errors, or ignore it."""
    INTERRUPTED.set()
    raise KeyboardInterrupt


def write(seed: int, folder: Path, first: int, images: Callable, metadata: Callable) -> None:
    """Change the index in ``folder`` until killed, at most for a minute; note each operation that
    has returned."""
    from irgen.index import database
    from irgen.index.index import Index

    os.fsync = lambda _: None  # a kill takes nothing back that the system has been given
    database.SYNCHRONOUS = "OFF"
    notes = os.open(folder.with_name("notes"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    alive: dict[str, int] = {}
    for number in range(first):
        alive = after(alive, number, *operation(seed, number, alive))
    with Index.open(folder, writable=True) as index:
        operate(index, alive, seed, first, notes, images, metadata)


def operate(index, alive, seed, first, notes, images, metadata) -> None:
    """Does one operation after the other, from ``first``."""
    folder, beside = index.folder.path, threading.Thread()
    end = time.monotonic() + 60
    for number in range(first, sys.maxsize):
        if INTERRUPTED.is_set():  # and a library has passed over it
            raise KeyboardInterrupt
        if time.monotonic() > end:
            os._exit(1)
        name, ids = operation(seed, number, alive)
        given: dict[str, Any] = {"ids": ids, "metadata": metadata(ids, number)}
        if name in ("add", "upsert"):
            getattr(index, f"{name}_encoded")(**given, **images(ids, number))
        elif name == "remove":
            index.remove(ids)
        elif name == "compact":
            index.compact()
        elif name == "beside":  # while the next operations are done
            if beside.ident:
                beside.join()
            beside = threading.Thread(target=index.compact)
            beside.start()
        else:
            index.save(folder.with_name(f"saved {number}"))
        alive = after(alive, number, name, ids)
        os.write(notes, f"{number}\n".encode())


def main() -> None:
    """Fork a writer for each line."""
    import conftest  # it lies beside this script

    import irgen.index.index  # noqa: F401 – once, for all writers

    print("ready", flush=True)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    for line in sys.stdin:
        seed, first, folder = line.rstrip("\n").split(" ", 2)
        process = os.fork()
        if not process:
            signal.signal(signal.SIGINT, interrupt)
            try:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
                write(int(seed), Path(folder), int(first), conftest.images, conftest.metadata)
            except BaseException:
                if INTERRUPTED.is_set():
                    os._exit(130)
                raise
        print(process, flush=True)
        _, status = os.waitpid(process, 0)
        print(status, flush=True)


if __name__ == "__main__":
    main()
