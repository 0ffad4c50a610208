"""List a folder on this machine as a source."""

import os
import stat
from pathlib import Path

from irgen.catalog.sources.listing import (
    Entry,
    Listing,
    check_key,
    count_skipped,
    is_candidate,
    is_hidden,
    map_keys,
    refuse,
)
from irgen.errors import SourceError, UnreadableError


def list_folder(root: Path) -> Listing:
    """List every image below `root` by its relative path, and a data set's annotation files.

    A link to a file inside counts as that file; a link to a folder inside is skipped, because its
    images are listed already. An image or link that cannot be followed or leaves the folder has a
    problem. Raises SourceError for a folder that cannot be read, and if there is no image.
    """
    files, folders, others, escapes = _walk(root)
    keys, empty_folders, top = map_keys(files, folders, str(root))
    entries = {key: _make_entry(key, f"{root}/{path}", files[path]) for key, path in keys.items()}
    for path, problem in escapes.items():
        key = check_key(path.removeprefix(top), str(root))
        entries[key] = refuse(key, problem)
    return Listing(
        entries=(entries[key] for key in sorted(entries)),
        count=len(entries),
        empty_folders=empty_folders,
        top=top,
        skipped=count_skipped(others),
    )


def _walk(
    root: Path,
) -> tuple[dict[str, os.stat_result | str], list[str], list[str], dict[str, str]]:
    """Return the candidate files with their status or problem, the folders, the other files, and
    the links to folders outside with their problem, by relative path."""
    files: dict[str, os.stat_result | str] = {}
    folders: list[str] = []
    others: list[str] = []
    escapes: dict[str, str] = {}
    inside, waiting = root.resolve(), [""]
    while waiting:
        parent = waiting.pop()
        for entry in _scan(f"{root}/{parent}"):
            path = f"{parent}{entry.name}"
            if _is_folder(entry):
                if is_hidden(entry.name):
                    continue
                if not entry.is_symlink():
                    folders.append(path)
                    waiting.append(f"{path}/")
                elif problem := find_escape(entry.path, inside):
                    escapes[path] = problem
            elif not is_candidate(entry.name):
                others.append(path)
            else:
                files[path] = look_at(entry.path, inside if entry.is_symlink() else None)
    return files, folders, others, escapes


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


def look_at(path: Path | str, inside: Path | None) -> os.stat_result | str:
    """Return the status of a file, or why it cannot be had. `inside`: the resolved folder that no
    link may leave; None: any."""
    try:
        if inside is not None and (problem := find_escape(path, inside)):
            return problem
        status = Path(path).stat()
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        return explain(error)
    if stat.S_ISDIR(status.st_mode):
        return "it is a folder, not a file"
    return status if stat.S_ISREG(status.st_mode) else "it is a pipe or device, not a file"


def find_escape(path: Path | str, inside: Path) -> str | None:
    """Return what is wrong if `path` leads out of the folder `inside`, which is resolved."""
    target = Path(os.path.realpath(path))
    if target.is_relative_to(inside):
        return None
    return (
        f"it leads to {target}, outside of the source; put the file itself there, or make the "
        "outer folder the source"
    )


def make_entry(key: str, path: Path | str, inside: Path | None) -> Entry:
    """Return the entry of a local file. `inside`: as in `look_at`."""
    return _make_entry(key, path, look_at(path, inside))


def _make_entry(key: str, path: Path | str, status: os.stat_result | str) -> Entry:
    """Return the entry of a file; its size and time of change are the etag."""
    if isinstance(status, str):
        return refuse(key, status)
    return Entry(key, f"{status.st_size}-{status.st_mtime_ns}", lambda: _read_image(path))


def _read_image(path: Path | str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UnreadableError(explain(error)) from None


def explain(error: OSError | ValueError) -> str:
    """Return why a file cannot be had, without its path."""
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return f"it cannot be read: {reason}"


def read_file(path: Path) -> bytes:
    """Return the bytes of a file that a source needs. Raises SourceError if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from None


def unreadable(path: Path, error: OSError) -> SourceError:
    """Return the error for a file or folder of the source that the system does not let us read."""
    remedy = "run again" if isinstance(error, FileNotFoundError) else "grant read access to it"
    return SourceError(f"{path} cannot be read ({error.strerror}); {remedy}, or remove it")
