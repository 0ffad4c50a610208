"""Room on a disk."""

import shutil
from pathlib import Path

from irgen.errors import RoomError

GIGABYTE = 1_000_000_000


def measure_size(path: Path) -> int:
    """Return the bytes of a file, or of the files directly in a folder, as their names have them:
    a file with holes counts whole."""
    files = path.iterdir() if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)


def require_room(folder: Path, size: int, purpose: str) -> None:
    """Raise RoomError if the disk of ``folder`` has no room for ``size`` bytes of ``purpose``."""
    free = shutil.disk_usage(folder).free
    if size > free:
        raise RoomError(
            f"no space left on the disk for {purpose}: {size / GIGABYTE:,.3g} GB are needed, and "
            f"{free / GIGABYTE:,.3g} GB are free below {folder}; free some space (dvc gc "
            "--workspace drops old results) and run again: what is done is kept"
        )
