"""List a folder on this machine as a source."""

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from irgen.catalog.sources.keys import make_key, name_files
from irgen.catalog.sources.listing import Entry, Listing, refuse
from irgen.catalog.sources.selection import (
    START,
    Candidate,
    Rules,
    find_ignored,
    make_rules,
    select_files,
)
from irgen.errors import SourceError, UnreadableError


def list_folder(root: Path, ignore: Sequence[str] = ()) -> Listing:
    """List every image below `root` by its relative path, and a data set's annotation files.

    A link to a file inside counts as that file; a link to a folder inside is skipped, because its
    images are listed already. An image or link that cannot be followed or leaves the folder has a
    problem. `ignore`: patterns of what to leave out. Raises SourceError for a folder that cannot
    be read, and if there is no image.
    """
    inside, escapes, rules = root.resolve(), dict[str, str](), make_rules(ignore)

    def note_escape(path: str) -> None:
        if problem := find_escape(f"{root}/{path}", inside):
            escapes[path] = problem

    selection = select_files(walk_folder(root, rules, note_escape), rules)
    names = name_files(selection, str(root))
    entries = {
        key: make_entry(key, f"{root}/{path}", inside if selection.files[path] else None)
        for key, path in names.paths.items()
    }
    for path, problem in escapes.items():
        key = make_key(path).removeprefix(names.top)
        entries[key] = refuse(key, problem)
    return Listing(
        entries=(entries[key] for key in sorted(entries)),
        count=len(entries),
        empty_folders=names.empty_folders,
        top=names.top,
        skipped=selection.skipped,
        ignored=selection.ignored,
    )


def walk_folder(
    root: Path, rules: Rules, note_link: Callable[[str], None]
) -> Iterator[Candidate[bool]]:
    """Yield the files and folders below `root`, but not what lies in an ignored folder. The value
    tells whether a file is a link; links to folders go to `note_link`, by relative path.

    Raises SourceError for a folder that cannot be read.
    """
    waiting = [""]
    while waiting:
        parent = waiting.pop()
        for entry in _scan(f"{root}/{parent}"):
            path, is_link = f"{parent}{entry.name}", entry.is_symlink()
            if not _is_folder(entry):
                yield Candidate(path, is_link, partial(_read_start, entry.path))
            elif find_ignored(f"{path}/", rules):
                yield Candidate(f"{path}/", is_link, bytes)
            elif is_link:
                note_link(path)
            else:
                waiting.append(f"{path}/")
                yield Candidate(f"{path}/", is_link, bytes)


def _read_start(path: str) -> bytes:
    try:
        if not Path(path).is_file():  # opening a pipe would wait for its other end
            return b""
        with Path(path).open("rb") as file:
            return file.read(START)
    except OSError:
        return b""


def _scan(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
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
        is_link = isinstance(error, OSError) and Path(path).is_symlink()
        return explain(error) + (
            f" ({Path(path).readlink()}, to which it links)" if is_link else ""
        )
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
