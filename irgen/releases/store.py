"""The folder of releases: numbered copies of indexes, and a link to the one that is served.

releases/0007-ab12cd34/   an index, and release.json
releases/champion         a link to one of these, moved in one step
releases/.lock            held while anything here is changed
"""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from irgen.errors import ArtifactError, ReleaseError
from irgen.files import sync, sync_tree
from irgen.releases import release
from irgen.releases.release import ABOUT, Release
from irgen.tracking import run_log

CHAMPION, LOCK = "champion", ".lock"
WAIT_SECONDS = 900.0  # for another release to end


def folder(root: Path) -> Path:
    """Where a project's releases are."""
    return root / "releases"


@contextmanager
def alone(shelf: Path, seconds: float = WAIT_SECONDS) -> Iterator[None]:
    """Keeps others from changing the shelf, and clears away what killed ones left half done.

    Raises ReleaseError if another one has been at it for longer than ``seconds``.
    """
    with run_log.locked(shelf / LOCK, seconds=seconds) as mine:
        if not mine:
            raise ReleaseError(
                f"another release has been under way in {shelf} for {seconds:.0f} s: wait for it"
            )
        for left in shelf.glob(".*.tmp"):
            shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
        yield


def all_releases(shelf: Path) -> list[Release]:
    """The releases on the shelf, the newest first; folders that are none are passed over."""
    found = []
    for path in shelf.glob("[0-9]*-*"):
        with suppress(ReleaseError, ArtifactError):
            found.append(release.read(path))
    return sorted(found, key=lambda each: each.version, reverse=True)


def champion(shelf: Path) -> Release | None:
    """The release that is served; None if there is none yet. Raises ReleaseError if the link leads
    nowhere."""
    link = shelf / CHAMPION
    if not link.is_symlink():
        return None
    place = shelf / link.readlink()
    if not (place / ABOUT).exists():
        there = ", ".join(str(each.version) for each in all_releases(shelf)) or "none"
        raise ReleaseError(
            f"{link} leads to {place.name}, which is not there: bring it back with irgen releases "
            f"fetch, or choose another one with irgen rollback VERSION; there: {there}"
        )
    return release.read(place)


def is_lost(shelf: Path) -> bool:
    """Whether a release is served whose folder is gone: the link leads nowhere."""
    link = shelf / CHAMPION
    return link.is_symlink() and not (link / ABOUT).exists()


def existing(shelf: Path, version: int) -> Release:
    """A release by its version. Raises ReleaseError if it is not on the shelf."""
    there = all_releases(shelf)
    for each in there:
        if each.version == version:
            return each
    known = ", ".join(str(each.version) for each in there) or "none"
    raise ReleaseError(f"there is no release {version} in {shelf}; there: {known}")


def put(shelf: Path, new: Release, fill: Callable[[Path], Any]) -> None:
    """Puts a release on the shelf: whole, or not at all. ``fill`` writes the index's files into the
    empty folder it is given. Raises ReleaseError if they are not those of ``new.files``."""
    place = shelf / f".{new.name}.{os.getpid()}.tmp"
    place.mkdir(parents=True)
    try:
        fill(place)
        if release.contents(place) != new.files:
            raise ReleaseError(
                f"the files of release {new.version} were changed while they were copied: repeat"
            )
        release.write(place, new)
        sync_tree(place)
        place.rename(shelf / new.name)
        sync(shelf)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def copy(index: Path, place: Path, names: Iterable[str]) -> None:
    """Copies files of an index, by their paths from there, into the folder ``place``."""
    for name in names:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(index / name, place / name)


def note(shelf: Path, changed: Release) -> Release:
    """Writes down what has changed of a release, and gives it back."""
    release.write(shelf / changed.name, changed)
    return changed


def promote(shelf: Path, chosen: Release) -> None:
    """Makes a release the champion, in one step: who opens the champion gets the old one or the new
    one."""
    link = shelf / f".{CHAMPION}.{os.getpid()}.tmp"
    link.symlink_to(chosen.name)
    link.replace(shelf / CHAMPION)
    sync(shelf)


def to_prune(there: list[Release], served: Release, keep: int) -> list[Release]:
    """Those of ``there`` (the newest first) that are to go: all but the champion, the one it took
    the place of, and the ``keep`` newest others."""
    stay = {served.version, served.previous}
    others = [each for each in there if each.version not in stay]
    return others[keep:]


def drop(shelf: Path, old: Release) -> None:
    """Takes a release off the shelf, in one step for others; who has it open keeps what it read."""
    gone = shelf / f".{old.name}.{os.getpid()}.tmp"
    (shelf / old.name).rename(gone)
    shutil.rmtree(gone)
