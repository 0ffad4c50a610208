"""What must last: files and folders forced to the disk, their checksums, and a full disk told."""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from irgen.errors import IndexingError
from irgen.files import atomic, digest, file_digest

REMEDY = "bring the folder back from a copy, or make the index again"


def settle(path: Path) -> None:
    """Returns when the file or folder itself (not what is in it) has reached the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def settle_tree(folder: Path) -> None:
    """Returns when a folder has reached the disk with all that is below it."""
    for path in folder.iterdir():
        settle_tree(path) if path.is_dir() else settle(path)
    settle(folder)


def put(path: Path, content: bytes) -> None:
    """Writes a file that takes the place of ``path`` at once and for good."""
    with atomic(path) as temporary:
        write(temporary, [content])
        settle(temporary)
    settle(path.parent)


def write(path: Path, parts: Iterable[Any]) -> None:
    """Writes a file of bytes-like ``parts``, one after the other."""
    with path.open("wb") as file:
        for part in parts:
            file.write(part)


def sum_of(path: Path) -> dict[str, Any]:
    """A file's size and SHA-256."""
    return {"size": path.stat().st_size, "sha256": file_digest(path)}


def sums(folder: Path) -> dict[str, dict[str, Any]]:
    """``sum_of`` every file below ``folder``, by its path from there."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sum_of(path) for path in files}


def check_size(path: Path, expected: dict[str, Any]) -> None:
    """Raises IndexingError unless the file is there and of its size."""
    try:
        size = path.stat().st_size
    except OSError:
        raise IndexingError(f"{path} is missing: {REMEDY}") from None
    if size != expected["size"]:
        raise IndexingError(
            f"{path} is damaged: it has {size:,} bytes, not {expected['size']:,}; {REMEDY}"
        )


def check(path: Path, expected: dict[str, Any]) -> None:
    """Raises IndexingError unless the file is, byte for byte, the one that was written."""
    check_size(path, expected)
    try:
        found = file_digest(path)
    except OSError as error:
        raise IndexingError(f"{path} cannot be read ({error.strerror}): {REMEDY}") from None
    if found != expected["sha256"]:
        raise damaged(path, "its checksum is another one")


def damaged(path: Path, why: object) -> IndexingError:
    """The error of a file that is not as it was written."""
    return IndexingError(f"{path} is damaged ({why}); {REMEDY}")


def write_sealed(path: Path, values: dict[str, Any]) -> None:
    """Writes ``values`` as JSON with a digest of them, so that the file vouches for itself."""
    content = json.dumps(values | {"digest": digest(values)}, indent=2, sort_keys=True)
    write(path, [f"{content}\n".encode()])


def read_sealed(path: Path) -> Any:
    """The inverse of ``write_sealed``, digest included but not compared yet: see ``check_seal``.
    Raises IndexingError if the file is missing or no JSON object."""
    try:
        values = json.loads(path.read_bytes())
    except OSError as error:
        raise IndexingError(f"{path} cannot be read ({error.strerror}): {REMEDY}") from None
    except ValueError as error:
        raise damaged(path, error) from None
    if not isinstance(values, dict):
        raise damaged(path, "it holds no JSON object")
    return values


def check_seal(path: Path, values: dict[str, Any]) -> None:
    """Raises IndexingError unless what was read from ``path`` has the digest it says."""
    own = {name: value for name, value in values.items() if name != "digest"}
    if values.get("digest") != digest(own):
        raise damaged(path, "its digest is another one")


@contextmanager
def full_disk_told(doing: str) -> Iterator[None]:
    """Whatever the operating system refuses becomes an IndexingError: nothing has changed."""
    try:
        yield
    except OSError as error:
        place = f" ({error.filename})" if error.filename else ""
        raise IndexingError(
            f"{doing} failed: {error.strerror or error}{place}; nothing was changed: make room or "
            "mend the permissions, then repeat"
        ) from error


def bytes_digest(parts: Iterable[Any]) -> str:
    """The hex SHA-256 of bytes-like ``parts``, one after the other."""
    total = hashlib.sha256()
    for part in parts:
        total.update(part)
    return total.hexdigest()
