"""Checks of an index's files: a file that is missing, damaged or cannot be written is an
IndexingError that names it."""

import errno
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from irgen.errors import IndexingError, WriteFailedError
from irgen.files.digests import digest, file_digest

SCARCE = re.compile("Too many open files|Cannot allocate memory|unable to open database file")
REMEDY = "restore the folder from a copy, or build the index again"


def damaged(path: Path, reason: object) -> IndexingError:
    """Return the error for a file that is not as it was written."""
    if SCARCE.search(str(reason)):
        return _scarce(path, reason)
    return IndexingError(f"{path} is damaged ({reason}); {REMEDY}")


def _scarce(path: Path, reason: object) -> IndexingError:
    """Return the error for a file that a limit of this process keeps from being read."""
    return IndexingError(
        f"{path} cannot be read ({reason}); it is not damaged: raise the limit of open files "
        "(ulimit -n 4096) or of memory (ulimit -v), then repeat"
    )


def unreadable(path: Path, error: OSError) -> IndexingError:
    """Return the error for a file that is missing or cannot be read."""
    if SCARCE.search(str(error)):
        return _scarce(path, error.strerror)
    if error.errno in (errno.EACCES, errno.EPERM):
        return IndexingError(
            f"{path} cannot be read ({error.strerror}): run as the user who owns it, or let others "
            "read it (chmod -R a+rX)"
        )
    return IndexingError(f"{path} cannot be read ({error.strerror}): {REMEDY}")


def check_readable(path: Path) -> None:
    """Raise IndexingError, with the reason, if a file cannot be read."""
    try:
        path.open("rb").close()
    except OSError as error:
        raise unreadable(path, error) from None


def check_size(path: Path, expected: dict[str, Any]) -> None:
    """Raise IndexingError unless the file is there and has the ``expected`` size."""
    try:
        size = path.stat().st_size
    except OSError:
        raise IndexingError(f"{path} is missing: {REMEDY}") from None
    if size != expected["size"]:
        raise damaged(path, f"it has {size:,} bytes, not {expected['size']:,}")


def check(path: Path, expected: dict[str, Any]) -> None:
    """Raise IndexingError unless the file has the ``expected`` size and SHA-256."""
    check_size(path, expected)
    try:
        sha256 = file_digest(path)
    except OSError as error:
        raise unreadable(path, error) from None
    if sha256 != expected["sha256"]:
        raise damaged(path, "its checksum differs")


def write_sealed(path: Path, values: dict[str, Any]) -> None:
    """Write ``values`` as JSON together with a digest of them."""
    sealed = values | {"digest": digest(values)}
    path.write_text(json.dumps(sealed, indent=2, sort_keys=True) + "\n")


def read_sealed(path: Path) -> dict[str, Any]:
    """Read what ``write_sealed`` wrote, ``digest`` included. Raise IndexingError if the file is
    missing, or is not what was written."""
    try:
        values = json.loads(path.read_bytes())
    except OSError as error:
        raise unreadable(path, error) from None
    except ValueError as error:
        raise damaged(path, error) from None
    if not isinstance(values, dict):
        raise damaged(path, "it holds no JSON object")
    unsealed = {name: value for name, value in values.items() if name != "digest"}
    if values.get("digest") != digest(unsealed):
        raise damaged(path, "its digest differs")
    return values


@contextmanager
def writing(action: str) -> Iterator[None]:
    """Turn an OSError, such as a full disk, into a WriteFailedError. ``action`` must leave nothing
    changed when it fails."""
    try:
        yield
    except OSError as error:
        path = f" ({error.filename})" if error.filename else ""
        raise failed(action, f"{error.strerror or error}{path}") from error


def failed(action: str, reason: str) -> WriteFailedError:
    """Return the error of a write that failed and changed nothing."""
    return WriteFailedError(
        f"{action} failed: {reason}; nothing was changed: free disk space or fix the permissions, "
        "then repeat"
    )
