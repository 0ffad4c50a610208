"""Digests of values and files."""

import hashlib
import json
from pathlib import Path
from typing import Any


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


def checksum(path: Path) -> dict[str, Any]:
    """Return the size and the SHA-256 of a file."""
    return {"size": path.stat().st_size, "sha256": file_digest(path)}


def checksums(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the ``checksum`` of every file below ``folder``, by its path relative to it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): checksum(path) for path in files}
