"""Keep small files for a while, by key, within a bound: thumbnails and pictures asked about."""

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from threading import Lock

from irgen.files.atomic import write_bytes

SHARE_KEPT = 0.8  # of the bound, when the oldest files have gone


class FileCache:
    """Files below ``folder``, together at most ``most_bytes``; those used longest ago go first.

    It may be deleted at any time. Threads and processes may share it: each looks at all files when
    it has stored a fifth of the bound, so n processes keep at most (4 + n) fifths of it.
    """

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self._folder, self._most, self._lock = folder, most_bytes, Lock()
        self._stored = most_bytes  # since all files were looked at; the first one looks

    def get(self, key: str) -> bytes | None:
        """Return the content stored under a key, None if there is none (any more)."""
        path = self._path(key)
        try:
            content = path.read_bytes()
        except OSError:
            return None
        with suppress(OSError):
            os.utime(path)  # used now
        return content

    def put(self, key: str, content: bytes) -> None:
        """Store content under a key. A disk that is full stores nothing."""
        with suppress(OSError), self._lock:
            write_bytes(self._path(key), content)
            self._stored += len(content)
            if self._stored > (1 - SHARE_KEPT) * self._most:
                self._stored = 0
                self._prune()

    def _path(self, key: str) -> Path:
        name = hashlib.sha256(key.encode()).hexdigest()
        return self._folder / name[:2] / name

    def _files(self) -> list[tuple[float, int, Path]]:
        """Return time of the last use, size and path of every file."""
        files = []
        for path in self._folder.glob("??/*"):
            with suppress(OSError):
                stat = path.stat()
                files.append((stat.st_mtime, stat.st_size, path))
        return files

    def _prune(self) -> None:
        files = sorted(self._files())
        surplus = sum(size for _, size, _ in files) - SHARE_KEPT * self._most
        for _, size, path in files:
            if surplus <= 0:
                break
            with suppress(OSError):
                path.unlink()
            surplus -= size
