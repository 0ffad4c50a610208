"""Release store: a folder of numbered indexes and a link to the one that is served.

releases/0007-ab12cd34/   an index and its release.json
releases/champion         a link to one of these folders, replaced atomically
releases/.lock            held while the store is changed
"""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from irgen.errors import ArtifactError, ReleaseError
from irgen.files.atomic import sync, sync_tree
from irgen.releases import release
from irgen.releases.release import RECORD, Release

CHAMPION, LOCK = "champion", ".lock"
LOCK_SECONDS = 900.0  # to wait for another release to end


def path_in(root: Path) -> Path:
    """Return the folder of a project's release store."""
    return root / "releases"


@contextmanager
def lock(store: Path) -> Iterator[None]:
    """Lock the store for changes and delete the temporary files of killed processes.

    Raise ReleaseError if another process holds the lock for longer than ``LOCK_SECONDS``.
    """
    store.mkdir(parents=True, exist_ok=True)
    try:
        held = FileLock(store / LOCK).acquire(timeout=LOCK_SECONDS)
    except Timeout:
        raise ReleaseError(
            f"another release has been running in {store} for {LOCK_SECONDS:.0f} s: wait for it"
        ) from None
    with held:
        for leftover in store.glob(".*.tmp"):
            is_folder = leftover.is_dir() and not leftover.is_symlink()
            shutil.rmtree(leftover) if is_folder else leftover.unlink()
        yield


def list_releases(store: Path) -> list[Release]:
    """Return the releases in the store, newest first. Skip folders without a readable record."""
    releases = []
    for path in store.glob("[0-9]*-*"):
        with suppress(ReleaseError, ArtifactError):
            releases.append(release.read(path))
    return sorted(releases, key=lambda listed: listed.version, reverse=True)


def read_champion(store: Path) -> Release | None:
    """Return the release that is served, None if there is none yet. Raise ReleaseError if its
    folder is missing."""
    link = store / CHAMPION
    if not link.is_symlink():
        return None
    if is_champion_missing(store):
        raise ReleaseError(
            f"{link} leads to {link.readlink().name}, which is missing: get it back with irgen "
            "releases pull, or choose another release with irgen rollback VERSION; available: "
            f"{format_versions(list_releases(store))}"
        )
    return release.read(store / link.readlink())


def is_champion_missing(store: Path) -> bool:
    """Tell whether the folder of the served release is missing."""
    link = store / CHAMPION
    return link.is_symlink() and not (link / RECORD).exists()


def find_release(store: Path, version: int) -> Release:
    """Return a release by its version. Raise ReleaseError if the store does not have it."""
    releases = list_releases(store)
    for candidate in releases:
        if candidate.version == version:
            return candidate
    raise ReleaseError(
        f"there is no release {version} in {store}; available: {format_versions(releases)}"
    )


def check_files(store: Path, listed: Release) -> None:
    """Raise ReleaseError if the files of a release differ from its record."""
    files = release.list_files(store / listed.name)
    names = sorted(files.keys() | listed.files.keys())
    if wrong := [name for name in names if files.get(name) != listed.files.get(name)]:
        raise ReleaseError(
            f"release {listed.version} is damaged: {store / listed.name / wrong[0]} is not as it "
            "was released; choose another with irgen rollback VERSION; available: "
            f"{format_versions(list_releases(store))}"
        )


def format_versions(releases: Iterable[Release]) -> str:
    """Return the versions of releases for a message."""
    return ", ".join(str(listed.version) for listed in releases) or "none"


def add_release(store: Path, new: Release, fill: Callable[[Path], Any]) -> None:
    """Add a release atomically. ``fill`` writes the index's files into the empty folder it is
    given. Raise ReleaseError if they differ from ``new.files``."""
    folder = store / f".{new.name}.{os.getpid()}.tmp"
    folder.mkdir(parents=True)
    try:
        fill(folder)
        if release.list_files(folder) != new.files:
            raise ReleaseError(
                f"the files of release {new.version} changed while they were copied: try again"
            )
        release.write(folder, new)
        sync_tree(folder)
        folder.rename(store / new.name)
        sync(store)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def copy_files(index: Path, folder: Path, names: Iterable[str]) -> None:
    """Copy the files ``names`` of an index into ``folder``."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(index / name, folder / name)


def update(store: Path, old: Release, **changes: Any) -> Release:
    """Write changed fields of a release to its record and return the changed release."""
    new = replace(old, **changes)
    if new != old:
        release.write(store / new.name, new)
    return new


def set_champion(store: Path, champion: Release) -> None:
    """Serve this release from now on. A process that opens the champion gets the old one or the
    new one, never a mixture."""
    link = store / f".{CHAMPION}.{os.getpid()}.tmp"
    link.symlink_to(champion.name)
    link.replace(store / CHAMPION)
    sync(store)


def select_to_prune(releases: list[Release], champion: Release, keep: int) -> list[Release]:
    """Return the releases to delete: all but the champion, the one before it and the ``keep``
    newest others. ``releases`` are given newest first."""
    spared = {champion.version, champion.previous}
    return [listed for listed in releases if listed.version not in spared][keep:]


def delete_release(store: Path, old: Release) -> None:
    """Delete a release; other processes see it vanish in one step."""
    folder = store / f".{old.name}.{os.getpid()}.tmp"
    (store / old.name).rename(folder)
    shutil.rmtree(folder)
