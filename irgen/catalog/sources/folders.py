"""A local folder of class folders as a source."""

import os
import stat
from pathlib import Path

from irgen.catalog.sources.listing import (
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
    images = counted(files, str(root))  # their paths
    top = common_top(images, folders)
    keys = sorted((check_key(path.removeprefix(top), str(root)), path) for path in images)
    empty = [folder.removeprefix(top) for folder in empty_folders(images, folders)]
    return Listing(
        entries=(file_entry(key, f"{root}/{path}", files[path]) for key, path in keys),
        count=len(keys),
        empty_folders=tuple(check_key(folder, str(root)) for folder in empty if folder),
    )


def _walk(root: Path) -> tuple[dict[str, os.stat_result], list[str]]:
    """The files that may count, with what the system says of them, and the folders."""
    found: dict[str, os.stat_result] = {}
    folders: list[str] = []
    inside, waiting = root.resolve(), [""]
    while waiting:
        here = waiting.pop()
        for entry in _scan(f"{root}/{here}"):
            path = f"{here}{entry.name}"
            if _is_folder(entry):
                if is_hidden(entry.name):
                    continue
                if entry.is_symlink():
                    refuse_escape(Path(entry.path), inside)
                else:
                    folders.append(path)
                    waiting.append(f"{path}/")
            elif may_count(entry.name) and (about := _file(entry, inside)):
                found[path] = about
    return found, folders


def _scan(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise unreadable(Path(folder), error) from None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # told, if it would count
        return False


def _file(entry: os.DirEntry[str], inside: Path) -> os.stat_result | None:
    """What the system says of a file; None of anything else."""
    try:
        if entry.is_symlink():
            refuse_escape(Path(entry.path), inside)
        about = entry.stat()
    except OSError as error:
        raise unreadable(Path(entry.path), error) from None
    return about if stat.S_ISREG(about.st_mode) else None


def refuse_escape(path: Path, inside: Path) -> None:
    """Raises SourceError if ``path`` leads out of the folder ``inside`` (resolved already)."""
    target = path.resolve()
    if not target.is_relative_to(inside):
        raise SourceError(
            f"{path} leads to {target}, outside of the source {inside}; "
            "put the files themselves there, or make the outer folder the source"
        )


def file_entry(key: str, path: Path | str, about: os.stat_result | None = None) -> Entry:
    """A local file: its size and time of change, which may be known already, are the etag."""
    try:
        about = about or Path(path).stat()
    except OSError as error:
        raise unreadable(Path(path), error) from None

    def read() -> bytes:
        try:
            return Path(path).read_bytes()
        except OSError as error:
            raise unreadable(Path(path), error) from None

    return Entry(key, f"{about.st_size}-{about.st_mtime_ns}", read)


def unreadable(path: Path, error: OSError) -> SourceError:
    """The error for a file or folder of the source that the system does not let us read."""
    remedy = "run again" if isinstance(error, FileNotFoundError) else "grant read access to it"
    return SourceError(f"{path} cannot be read ({error.strerror}); {remedy}, or take it away")
