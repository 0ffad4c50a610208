"""List a folder on this machine as a source."""

import os
import stat
from pathlib import Path

from irgen.catalog.sources.listing import (
    Entry,
    Listing,
    count_skipped,
    is_candidate,
    is_hidden,
    map_keys,
)
from irgen.errors import SourceError


def list_folder(root: Path) -> Listing:
    """List every image below `root` by its relative path, and a data set's annotation files.

    A link to a file inside counts as that file; a link to a folder inside is skipped, because its
    images are listed already. Raises SourceError for a link that leaves the folder, for what cannot
    be read, and if there is no image.
    """
    files, folders, others = _walk(root)
    keys, empty_folders, top = map_keys(files, folders, str(root))
    return Listing(
        entries=(make_entry(key, f"{root}/{keys[key]}", files[keys[key]]) for key in sorted(keys)),
        count=len(keys),
        empty_folders=empty_folders,
        top=top,
        skipped=count_skipped(others),
    )


def _walk(root: Path) -> tuple[dict[str, os.stat_result], list[str], list[str]]:
    """Return the candidate files with their status, the folders, and the other files, by relative
    path."""
    files: dict[str, os.stat_result] = {}
    folders: list[str] = []
    others: list[str] = []
    inside, waiting = root.resolve(), [""]
    while waiting:
        parent = waiting.pop()
        for entry in _scan(f"{root}/{parent}"):
            path = f"{parent}{entry.name}"
            if _is_folder(entry):
                if is_hidden(entry.name):
                    continue
                if entry.is_symlink():
                    refuse_escape(Path(entry.path), inside)
                else:
                    folders.append(path)
                    waiting.append(f"{path}/")
            elif not is_candidate(entry.name):
                others.append(path)
            elif status := _file_status(entry, inside):
                files[path] = status
    return files, folders, others


def _scan(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise unreadable(Path(folder), error) from None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # reported later, if it would count as a file
        return False


def _file_status(entry: os.DirEntry[str], inside: Path) -> os.stat_result | None:
    """Return the status of a regular file; None of anything else."""
    try:
        if entry.is_symlink():
            refuse_escape(Path(entry.path), inside)
        status = entry.stat()
    except OSError as error:
        raise unreadable(Path(entry.path), error) from None
    return status if stat.S_ISREG(status.st_mode) else None


def refuse_escape(path: Path, inside: Path) -> None:
    """Raise SourceError if `path` leads out of the folder `inside`, which is resolved already."""
    target = path.resolve()
    if not target.is_relative_to(inside):
        raise SourceError(
            f"{path} leads to {target}, outside of the source {inside}; "
            "put the files themselves there, or make the outer folder the source"
        )


def make_entry(key: str, path: Path | str, status: os.stat_result | None = None) -> Entry:
    """Return the entry of a local file; its size and time of change are the etag."""
    try:
        status = status or Path(path).stat()
    except OSError as error:
        raise unreadable(Path(path), error) from None
    return Entry(key, f"{status.st_size}-{status.st_mtime_ns}", lambda: read_file(Path(path)))


def read_file(path: Path) -> bytes:
    """Return the bytes of a file of the source. Raises SourceError if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from None


def unreadable(path: Path, error: OSError) -> SourceError:
    """Return the error for a file or folder of the source that the system does not let us read."""
    remedy = "run again" if isinstance(error, FileNotFoundError) else "grant read access to it"
    return SourceError(f"{path} cannot be read ({error.strerror}); {remedy}, or remove it")
