"""Image files that were added by hand, by content: ``uploads/<first two digits>/<sha256>``.

Another release's models have to encode these images again, and pictures of them are read here. A
file is on the disk before an index names it.
"""

import hashlib
import os
import re
import threading
import time
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path

from irgen.files.atomic import sync

FOLDER = "uploads"  # in the project's folder; neither Git nor DVC looks at it
IS_SHA256 = re.compile("[0-9a-f]{64}").fullmatch
GRACE = 3600.0  # seconds that a file may wait for the index to name it


def upload_path(root: Path, sha256: str) -> Path:
    """Return the path of the file with this SHA-256, whether it exists or not."""
    return root / FOLDER / sha256[:2] / sha256


def store_upload(root: Path, content: bytes) -> str:
    """Keep an image file and return its SHA-256. It is on the disk when this returns. A file that
    is there already is not written again. Threads and processes may store the same content."""
    sha256 = hashlib.sha256(content).hexdigest()
    path = upload_path(root, sha256)
    with suppress(FileNotFoundError):
        if path.read_bytes() == content:
            os.utime(path)  # it may wait again for an index to name it
            return sha256
    if not path.parent.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        for folder in (path.parent.parent, root):
            sync(folder)
    temporary = path.with_name(f".{sha256}.{threading.get_native_id()}.tmp")
    try:
        temporary.write_bytes(content)
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)
    return sha256


def read_upload(root: Path, sha256: str) -> bytes | None:
    """Return the file with this SHA-256; None if it is not kept, or not as it was stored."""
    if not IS_SHA256(sha256):
        return None
    with suppress(OSError):
        content = upload_path(root, sha256).read_bytes()
        if hashlib.sha256(content).hexdigest() == sha256:
            return content
    return None


def delete_uploads(root: Path, sha256s: Iterable[str]) -> None:
    """Delete the files with these SHA-256s, as far as they are kept."""
    for sha256 in filter(IS_SHA256, sha256s):  # no path to another file
        upload_path(root, sha256).unlink(missing_ok=True)


def prune_uploads(root: Path, named: Collection[str]) -> None:
    """Delete the files that are not ``named`` by an index, and what killed processes left. A file
    that was stored less than ``GRACE`` seconds ago stays: its index may be about to name it."""
    latest = time.time() - GRACE
    for path in (root / FOLDER).glob("??/*"):
        with suppress(FileNotFoundError):  # another process has just deleted it
            if path.name not in named and path.stat().st_mtime < latest:
                path.unlink()
