"""A local folder of class folders as a source."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from irgen.catalog.listing import (
    Entry,
    Listing,
    check_key,
    common_top,
    counted,
    empty_folders,
    is_hidden,
    may_count,
)
from irgen.errors import SourceError


def list_folder(root: Path) -> Listing:
    """Every image below ``root``, by relative path; a single top folder is left out of the keys.
    The annotation files of a published set are listed as its images are.

    A link to a file inside counts as that file; a link to a folder inside is passed over, since its
    images are listed already. Raises SourceError for a link that leaves the folder, for what cannot
    be read, and if no image is there.
    """
    files, folders = _walk(root)
    images = counted(files, str(root))
    top = common_top(images, folders)
    keys = sorted((check_key(path.removeprefix(top), str(root)), path) for path in images)
    empty = [folder.removeprefix(top) for folder in empty_folders(images, folders)]
    return Listing(
        entries=(file_entry(key, root / path) for key, path in keys),
        count=len(keys),
        empty_folders=tuple(check_key(folder, str(root)) for folder in empty if folder),
    )


def _walk(root: Path) -> tuple[list[str], list[str]]:
    found, folders = [], []
    inside = root.resolve()
    for parent, names, files in os.walk(root, onerror=_unreadable):
        here = Path(parent)
        names[:] = sorted(name for name in names if not is_hidden(name))
        for name in names:
            if (here / name).is_symlink():
                refuse_escape(here / name, inside)
            else:
                folders.append((here / name).relative_to(root).as_posix())
        for name in files:
            if may_count(name) and _is_file(here / name, inside):
                found.append((here / name).relative_to(root).as_posix())
    return found, folders


def _is_file(path: Path, inside: Path) -> bool:
    try:
        if path.is_symlink():
            refuse_escape(path, inside)
        return stat.S_ISREG(path.stat().st_mode)
    except OSError as error:
        raise unreadable(path, error) from None


def refuse_escape(path: Path, inside: Path) -> None:
    """Raises SourceError if ``path`` leads out of the folder ``inside`` (resolved already)."""
    target = path.resolve()
    if not target.is_relative_to(inside):
        raise SourceError(
            f"{path} leads to {target}, outside of the source {inside}; "
            "put the files themselves there, or make the outer folder the source"
        )


def file_entry(key: str, path: Path) -> Entry:
    """A local file: its size and time of change are the etag."""
    try:
        about = path.stat()
    except OSError as error:
        raise unreadable(path, error) from None

    def read() -> bytes:
        try:
            return path.read_bytes()
        except OSError as error:
            raise unreadable(path, error) from None

    return Entry(key, f"{about.st_size}-{about.st_mtime_ns}", read)


def _unreadable(error: OSError) -> Iterator[None]:
    raise unreadable(Path(error.filename), error)


def unreadable(path: Path, error: OSError) -> SourceError:
    """The error for a file or folder of the source that the system does not let us read."""
    remedy = "run again" if isinstance(error, FileNotFoundError) else "grant read access to it"
    return SourceError(f"{path} cannot be read ({error.strerror}); {remedy}, or take it away")
