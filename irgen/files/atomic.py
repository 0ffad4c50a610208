"""Write files and folders whole or not at all, and force them to the disk."""

import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


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


def delete_strays(folder: Path, seconds: float = 0.0) -> None:
    """Delete the temporary files and folders that killed processes left below ``folder``: those of
    ``atomic`` that have not changed for so many ``seconds``."""
    for path in list(folder.rglob(".*.tmp")):
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime >= seconds:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def delete_oldest(paths: Iterable[Path], kept: int) -> None:
    """Delete files and folders of a cache, but not the ``kept`` ones that changed last."""
    for path in sorted(paths, key=lambda path: path.stat().st_mtime_ns)[:-kept]:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
