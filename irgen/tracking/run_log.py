"""The journal of a stage's run: what is tracked, line by line, before anything goes to a server.

A journal is ``<folder>/<build>/<stage>.jsonl``, one JSON object a line, each with ``kind`` and
``time`` (milliseconds since 1970). Kinds: ``begin`` (tags, parameters), ``metrics`` (values, step),
``end`` (status, artifacts, data sets). Its writer holds a lock on the file for as long as it lives,
so a journal without an end whose lock is free is one whose writer was killed.
"""

import fcntl
import json
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from irgen.errors import ArtifactError
from irgen.files import read_json, write_bytes, write_json


def now() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def create(folder: Path, build: str, stage: str) -> tuple[Path, TextIO]:
    """A new, locked journal; a stage's second run within a build is numbered: ``stage-2.jsonl``."""
    home = folder / plain(build)
    home.mkdir(parents=True, exist_ok=True)
    for attempt in range(1, 10_000):
        path = home / f"{stage}{'' if attempt == 1 else f'-{attempt}'}.jsonl"
        try:
            file = path.open("x", encoding="utf-8")
        except FileExistsError:
            continue
        fcntl.flock(file, fcntl.LOCK_EX)
        return path, file
    raise FileExistsError(f"{home} holds ten thousand journals of {stage}")


def append(file: TextIO, kind: str, **fields: Any) -> None:
    """Writes one record and hands it to the operating system, so that it outlives a kill."""
    file.write(_line(kind, fields))
    file.flush()


def write(path: Path, records: list[tuple[str, dict[str, Any]]]) -> None:
    """Writes a journal of (kind, fields) of which all is known: the whole of it, or nothing."""
    write_bytes(path, "".join(_line(kind, fields) for kind, fields in records).encode())


def _line(kind: str, fields: dict[str, Any]) -> str:
    return json.dumps({"kind": kind, "time": now(), **fields}, default=str) + "\n"


def records(path: Path) -> list[dict[str, Any]]:
    """The journal's whole records; a last line that was cut off in mid-write is left out."""
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    return [json.loads(line) for line in lines if line]


def being_written(path: Path) -> bool:
    """Whether the journal's writer is alive."""
    return is_held(path)


def is_held(path: Path) -> bool:
    """Whether a process holds the lock file ``path``."""
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


@contextmanager
def locked(path: Path, *, seconds: float) -> Iterator[bool]:
    """Holds the lock file ``path``; gives False when it cannot be had within ``seconds``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + seconds
    with path.open("a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    yield False
                    return
                time.sleep(0.05)
        yield True


def state(path: Path) -> dict[str, Any]:
    """What is published of a journal: ``done``; the ``store``, ``run`` and ``records`` so far. One
    whose note a power cut left empty counts as unpublished: done again, nothing is there twice."""
    place = path.with_suffix(".state")
    try:
        return read_json(place) if place.exists() else {"done": False}
    except ArtifactError:
        return {"done": False}


def set_state(path: Path, **fields: Any) -> None:
    """Notes what is published of a journal."""
    write_json(path.with_suffix(".state"), fields)


def unpublished(folder: Path) -> list[Path]:
    """The journals with anything in them that are not yet wholly published, oldest first."""
    waiting = []
    for path in folder.glob("*/*.jsonl"):
        with suppress(FileNotFoundError):  # a run with nothing to tell has just been forgotten
            if path.stat().st_size and not state(path)["done"]:
                waiting.append((path.stat().st_mtime_ns, path))
    return [path for _, path in sorted(waiting)]


def forget(folder: Path, *, days: float) -> None:
    """Deletes the builds whose journals are all published and have not been touched for so many
    days: whoever looks for what is unpublished goes through all there are."""
    oldest = time.time() - days * 86_400
    for home in (path for path in folder.glob("*") if path.is_dir()):
        journals = list(home.glob("*.jsonl"))
        with suppress(FileNotFoundError):
            touched = max((path.stat().st_mtime for path in home.iterdir()), default=0.0)
            if touched < oldest and all(state(path)["done"] for path in journals):
                shutil.rmtree(home)


def keepsakes(path: Path) -> Path:
    """The folder beside a journal that keeps copies of artifacts which could not be published."""
    return path.with_suffix(".files")


def plain(name: str) -> str:
    """``name`` as a single file name.

    >>> plain("run 1/../x")
    'run-1-..-x'
    """
    return re.sub(r"[^A-Za-z0-9_.+-]", "-", name).lstrip(".") or "build"
