"""Run logs: files in which stages record their runs, to be sent to MLflow.

A run log is ``<folder>/<build>/<stage>.jsonl``: one JSON object a line, each with ``kind`` and
``time`` (milliseconds since 1970). Kinds: ``begin`` (tags, parameters), ``metrics`` (values, step),
``end`` (status, files, data sets). Beside it lie ``<stage>.lock``, held while the writer lives;
``<stage>.state``, how much of it MLflow has; and ``<stage>.files``, copies of files to upload.
"""

import json
import re
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from irgen.errors import ArtifactError
from irgen.files.atomic import write_bytes
from irgen.files.locks import is_locked
from irgen.files.records import read_json, write_json
from irgen.tracking.provenance import is_alive

Record = dict[str, Any]
OUTCOMES, TABLES, TRIAL = "outcomes", "tables", "trial"  # of a build; of a comparison, its trials
ATTEMPTS = 10_000  # of a stage within one build
# Endings of the files that MLflow gets: pages, figures and models. Files of all other kinds may
# hold images, embeddings or names of images, which must not outlive the images.
COPIED = frozenset({".csv", ".html", ".json", ".md", ".png", ".safetensors", ".svg", ".tex"})


@dataclass(frozen=True)
class RunLog:
    """A run log that is open for writing: its path, and the lock that shows it has a writer."""

    path: Path
    lock: FileLock

    def append(self, kind: str, **fields: Any) -> None:
        """Append one record. Raise OSError if the disk is full."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_format(kind, fields))

    def delete(self) -> None:
        """Delete the run log, and its build's folder if that is empty then."""
        self.path.unlink(missing_ok=True)
        lock_path(self.path).unlink(missing_ok=True)
        self.lock.release()
        with suppress(OSError):
            self.path.parent.rmdir()


def create(folder: Path, build: str, stage: str) -> RunLog:
    """Create a run log. Number a stage's later runs within a build: ``stage-2.jsonl``."""
    home = folder / safe_name(build)
    home.mkdir(parents=True, exist_ok=True)
    for attempt in range(1, ATTEMPTS):
        path = home / f"{stage}{'' if attempt == 1 else f'-{attempt}'}.jsonl"
        lock = FileLock(lock_path(path), timeout=0, thread_local=False)
        with suppress(Timeout, FileExistsError):
            lock.acquire()
            path.touch(exist_ok=False)
            return RunLog(path, lock)
        lock.release()
    raise FileExistsError(f"{home} holds {ATTEMPTS:,} run logs of {stage}")


def write(path: Path, records: list[tuple[str, Record]]) -> None:
    """Write a run log of (kind, fields) atomically."""
    write_bytes(path, "".join(_format(kind, fields) for kind, fields in records).encode())


def _format(kind: str, fields: Record) -> str:
    record = {"kind": kind, "time": time.time_ns() // 1_000_000, **fields}
    return json.dumps(record, default=str) + "\n"


def read(path: Path) -> list[Record]:
    """Return the complete records of a run log; skip a last line that was cut off."""
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    return [json.loads(line) for line in lines if line]


def read_begin(path: Path) -> Record:
    """Return the first record of a run log; empty if it has none."""
    with suppress(FileNotFoundError), path.open(encoding="utf-8") as file:
        if (line := file.readline()).endswith("\n"):
            return json.loads(line)
    return {}


def lock_path(path: Path) -> Path:
    """Return the lock file of a run log's writer."""
    return path.with_suffix(".lock")


def has_writer(path: Path) -> bool:
    """Tell whether the process that writes the run log is alive."""
    return is_locked(lock_path(path))


def is_open(path: Path) -> bool:
    """Tell whether more records can come: the run log has a writer and no end."""
    with suppress(FileNotFoundError):
        if has_writer(path):
            records = read(path)
            return not records or records[-1]["kind"] != "end"
    return False


def is_build_running(home: Path) -> bool:
    """Tell whether the build with the run logs in ``home`` goes on: the process that runs it is
    alive and has not logged the outcomes."""
    if (home / f"{OUTCOMES}.jsonl").exists():
        return False
    return any(is_alive(read_begin(path).get("owner")) for path in home.glob("*.jsonl"))


def is_waiting(path: Path) -> bool:
    """Tell whether MLflow has all of a run log, but its build goes on."""
    state = read_state(path)
    return not state["done"] and state.get("sent", False) and is_build_running(path.parent)


def read_state(path: Path) -> Record:
    """Return how much of a run log MLflow has: ``done``; and ``sent`` (the end, too), ``store``,
    ``run`` and number of ``records`` so far, and the ids of the ``build``'s experiment and run. A
    run log is done when its build has ended. If the file is damaged, the run log is synced again;
    nothing is logged twice."""
    state = path.with_suffix(".state")
    try:
        return read_json(state) if state.exists() else {"done": False}
    except ArtifactError:
        return {"done": False}


def write_state(path: Path, **fields: Any) -> None:
    """Write how much of a run log MLflow has."""
    write_json(path.with_suffix(".state"), fields)


def error_path(path: Path) -> Path:
    """Return the file with the sync error of a build's run logs."""
    return path.with_name("sync-error")


def list_unsynced(folder: Path) -> list[Path]:
    """Return the run logs that MLflow lacks or has in part, oldest first. Those that wait for the
    end of their build are among them when it has ended."""
    unsynced = []
    for path in folder.glob("*/*.jsonl"):
        with suppress(FileNotFoundError):  # a stage that had nothing to log has just deleted it
            if path.stat().st_size and not read_state(path)["done"] and not is_waiting(path):
                unsynced.append((path.stat().st_mtime_ns, path))
    return [path for _, path in sorted(unsynced)]


def delete_synced(folder: Path, *, days: float) -> None:
    """Delete the builds whose run logs are all synced and were not touched for ``days``."""
    oldest = time.time() - days * 86_400
    for home in (path for path in folder.glob("*") if path.is_dir()):
        with suppress(FileNotFoundError):
            touched = max((path.stat().st_mtime for path in home.iterdir()), default=0.0)
            is_synced = all(read_state(path)["done"] for path in home.glob("*.jsonl"))
            if touched < oldest and is_synced:
                shutil.rmtree(home)


def is_copied(file: Record, max_bytes: int) -> bool:
    """Tell whether MLflow gets a copy of a stage's file, and not only its path, size and hash."""
    return file["bytes"] <= max_bytes and Path(file["name"]).suffix in COPIED


def copies_folder(path: Path) -> Path:
    """Return the folder with copies of the files that are still to be uploaded."""
    return path.with_suffix(".files")


def safe_name(name: str) -> str:
    """Return ``name`` as a single file name.

    >>> safe_name("run 1/../x")
    'run-1-..-x'
    """
    return re.sub(r"[^A-Za-z0-9_.+-]", "-", name).lstrip(".") or "build"
