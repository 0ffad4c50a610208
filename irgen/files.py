"""Atomic writes, content digests, sealed files, JSON, locks, and DVC's lock file.

A sealed file holds its own SHA-256, so that a flipped bit is noticed before its content is used.
"""

import fcntl
import hashlib
import json
import mmap
import operator
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml

from irgen.errors import ArtifactError

DIGEST, SEAL, HEX = "irgen.sha256", "irgen-sha256:", 64
UNSEALED = SEAL + "0" * HEX
AGAIN = (
    "delete it and run again (dvc repro); if it comes back damaged, so is its copy in DVC's cache: "
    "see how-to/messages.md"
)
FIRST = 1 << 12  # bytes in which the seal of a file begins that has it at its beginning


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


def write_sealed_json(path: Path, values: dict[str, Any]) -> None:
    """Write ``values`` as ``write_json`` does, with a digest that ``read_json`` checks."""
    write_json(path, values | {DIGEST: digest(values)})


def read_json(path: Path) -> Any:
    """Return the JSON value in ``path``, without the digest that ``write_sealed_json`` adds. Raises
    ArtifactError if it is missing or damaged."""
    try:
        value = json.loads(path.read_text())
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing") from None
    except ValueError as error:
        raise ArtifactError(
            f"{path} is not valid JSON ({error}); delete it and run again"
        ) from None
    if isinstance(value, dict) and not _has_digest(value):
        raise damaged(path, "its checksum differs")
    return value


def _has_digest(value: dict[str, Any]) -> bool:
    """Take the digest out of a record, and tell whether it was right, or there was none."""
    for key in list(value):
        if len(key) == len(DIGEST) and sum(map(operator.ne, key, DIGEST)) <= 1:  # a flipped bit
            return bool(value.pop(key) == digest(value) and key == DIGEST)
    return True


def write_array(path: Path, values: np.ndarray) -> None:
    """Write an array as a sealed .npy, whole or not at all."""
    with atomic(path) as temporary:
        with temporary.open("wb") as file:
            np.save(file, values)
            file.write(UNSEALED.encode())
        seal(temporary)


def read_array(path: Path) -> np.ndarray:
    """Return the array in a .npy file, memory-mapped; changes to it stay in memory. Raises
    ArtifactError if the file is missing or damaged."""
    try:
        check_seal(path)
        return np.load(path, mmap_mode="c")
    except FileNotFoundError:
        raise ArtifactError(
            f"{path} is missing: run the stage that writes it (dvc repro)"
        ) from None
    except (ValueError, EOFError) as error:
        raise damaged(path, error) from None


def write_parquet(path: Path, table: pl.DataFrame, notes: dict[str, str] | None = None) -> None:
    """Write a table as a sealed Parquet file with the metadata ``notes``, whole or not at all;
    equal tables give equal files."""
    with atomic(path) as temporary:
        table.rechunk().write_parquet(temporary, metadata={**(notes or {}), DIGEST: UNSEALED})
        seal(temporary)


def read_parquet(path: Path, remedy: str = AGAIN) -> pl.DataFrame:
    """Return the table in a Parquet file. Raises ArtifactError if it is missing or damaged."""
    try:
        check_seal(path, remedy)
        return pl.read_parquet(path)
    except FileNotFoundError:
        raise ArtifactError(
            f"{path} is missing: run the stage that writes it (dvc repro)"
        ) from None
    except (pl.exceptions.PolarsError, OSError) as error:
        raise damaged(path, error, remedy) from None


def read_numbers(path: Path, *texts: str) -> pl.DataFrame:
    """Return the table in a CSV file of numbers and the columns ``texts``. Raises ArtifactError if
    it is damaged, as far as that shows: such a file holds no checksum."""
    try:
        table = pl.read_csv(path, infer_schema_length=None)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise damaged(path, error) from None
    for column in table.drop(*texts, strict=False):
        if not column.dtype.is_numeric() and column.null_count() < len(column):
            raise damaged(path, f"column {column.name!r} has something else than numbers")
    return table


def damaged(path: Path, reason: object, remedy: str = AGAIN) -> ArtifactError:
    """Return the error for a file that is not as it was written."""
    return ArtifactError(f"{path} is damaged ({' '.join(str(reason).split())[:200]}): {remedy}")


def seal(path: Path) -> None:
    """Write the SHA-256 of a file into it, where it holds UNSEALED."""
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as content:
        start = _find_seal(content)
        assert start >= 0, f"{path} has no place for a seal"
        content[start : start + HEX] = hashlib.sha256(content).hexdigest().encode()


def check_seal(path: Path, remedy: str = AGAIN) -> None:
    """Raise ArtifactError if a file is not as ``seal`` left it. A file without a seal, of an older
    version, passes."""
    with path.open("rb") as file:
        if not os.fstat(file.fileno()).st_size:
            raise damaged(path, "it is empty", remedy)
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            start = _find_seal(content)
            if start < 0:
                return
            expected, total = content[start : start + HEX], hashlib.sha256()
            with memoryview(content) as view, view[:start] as head, view[start + HEX :] as tail:
                total.update(head)
                total.update(b"0" * HEX)
                total.update(tail)
    if total.hexdigest().encode() != expected:
        raise damaged(path, "its checksum differs", remedy)


def _find_seal(content: mmap.mmap) -> int:
    """Return where the hexadecimal digits of a seal begin; −1 if there is none. Parquet files and
    arrays have it at their end, others at their beginning."""
    mark, at_end = SEAL.encode(), content[:4] in (b"PAR1", b"\x93NUM")
    start = content.rfind(mark) if at_end else content.find(mark, 0, FIRST)
    return start + len(mark) if start >= 0 else -1


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
