"""Atomic writes, content digests, JSON, locks, and DVC's lock file."""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from irgen.errors import ArtifactError


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``, which replaces ``path`` at the end of the block.

    The temporary path can become a file or a folder. If the block fails, it is deleted, and
    ``path`` is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        if temporary.is_dir() and path.is_dir():
            shutil.rmtree(path)
        temporary.replace(path)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path``, whole or not at all."""
    with atomic(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON with sorted keys, whole or not at all."""
    write_bytes(path, (json.dumps(value, indent=2, sort_keys=True) + "\n").encode())


def read_json(path: Path) -> Any:
    """Return the JSON value in ``path``. Raises ArtifactError if it is missing or damaged."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing") from None
    except ValueError as error:
        raise ArtifactError(
            f"{path} is not valid JSON ({error}); delete it and run again"
        ) from None


def write_array(path: Path, values: np.ndarray) -> None:
    """Write an array as .npy, whole or not at all."""
    with atomic(path) as temporary, temporary.open("wb") as file:
        np.save(file, values)


def read_array(path: Path) -> np.ndarray:
    """Return the array in a .npy file, memory-mapped; changes to it stay in memory. Raises
    ArtifactError if the file is missing or damaged."""
    try:
        return np.load(path, mmap_mode="c")
    except FileNotFoundError:
        raise ArtifactError(
            f"{path} is missing: run the stage that writes it (dvc repro)"
        ) from None
    except (ValueError, EOFError) as error:
        raise ArtifactError(f"{path} is damaged ({error}); delete it and run dvc repro") from None


def digest(*parts: Any) -> str:
    """Return the hex SHA-256 of JSON-able values, equal for equal values.

    >>> digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    True
    """
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """Return the hex SHA-256 of a file's content, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Force a file, or a folder's own entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Force a folder and all that is below it to the disk."""
    for path in folder.iterdir():
        sync_tree(path) if path.is_dir() else sync(path)
    sync(folder)


def checksum(path: Path) -> dict[str, Any]:
    """Return the size and the SHA-256 of a file."""
    return {"size": path.stat().st_size, "sha256": file_digest(path)}


def checksums(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the ``checksum`` of every file below ``folder``, by its path relative to it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): checksum(path) for path in files}


def delete_oldest(paths: Iterable[Path], kept: int) -> None:
    """Delete files and folders of a cache, but not the ``kept`` ones that changed last."""
    for path in sorted(paths, key=lambda path: path.stat().st_mtime_ns)[:-kept]:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


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
