"""Follow the champion in a bucket, on a machine that has nothing but this package."""

from pathlib import Path

from irgen.errors import ReleaseError
from irgen.params import Release as Settings
from irgen.releases import pull, remote, store

KEEP = 1  # releases besides the champion and the one before it: a rollback needs no download


def follow(root: Path, url: str) -> bool:
    """Serve the champion of the bucket at ``url`` from the store of ``root``; return whether it is
    another one than before.

    Ask the bucket once; if the champion is another one, pull it, check it, and delete old releases.
    Raise ReleaseError if the bucket has no champion or a damaged one, SourceError if it does not
    answer, RoomError if the disk is too small; then the old champion stays.
    """
    releases = store.path_in(root)
    champion = remote.read_champion(remote.connect(""), url)
    if champion is None:
        raise ReleaseError(f"{url} has no champion yet: irgen release writes one")
    link = releases / store.CHAMPION
    is_served = link.is_symlink() and link.readlink().name == champion["name"]
    if is_served and not store.is_champion_missing(releases):
        return False
    pull.pull_release(releases, Settings(remote=url, keep=KEEP))
    return True


def locate(root: Path, url: str) -> Path:
    """Return the folder of the release that was pulled last. Raise ReleaseError if there is none
    yet."""
    champion = store.read_champion(store.path_in(root))
    if champion is None:
        raise ReleaseError(f"no release was pulled from {url} yet")
    return store.path_in(root) / champion.name
