"""Serve another release: an earlier one, or a later one again (``irgen rollback``)."""

from pathlib import Path

from irgen.errors import ReleaseError
from irgen.releases import store
from irgen.releases.promote import Outcome, promote
from irgen.releases.release import Release
from irgen.releases.settings import ReadSettings


def roll_back(root: Path, read_settings: ReadSettings, version: int | None = None) -> Outcome:
    """Serve the release ``version``, by default the one before the champion.

    If that release was served before, the champion is withdrawn: only ``--force`` or another
    rollback serves it again. A rollback to a ``version`` works even if the champion's folder is
    missing. ``read_settings`` returns the settings for bucket and MLflow: if they are wrong, the
    next release brings those up to date. Raise ReleaseError if there is no champion, if there is no
    such release, or if that release is damaged.
    """
    releases = store.path_in(root)
    with store.lock(releases):
        if version is not None and store.is_champion_missing(releases):
            target = store.find_release(releases, version)
            store.check_files(releases, target)
            return promote(root, read_settings, target, None, previous=target.previous)
        champion = store.read_champion(releases)
        if champion is None:
            raise ReleaseError(f"no release in {releases} is served: irgen release makes the first")
        version = _default_version(releases, champion) if version is None else version
        target = store.find_release(releases, version)
        if target.version == champion.version:
            return promote(root, read_settings, target, champion, previous=target.previous)
        store.check_files(releases, target)
        if target.state == "released":
            store.update(releases, champion, state="withdrawn")  # first: a kill must not undo it
            return promote(root, read_settings, target, champion, previous=target.previous)
        return promote(root, read_settings, target, champion, previous=champion.version)


def _default_version(releases: Path, champion: Release) -> int:
    if champion.previous is not None:
        return champion.previous
    raise ReleaseError(
        f"release {champion.version} replaced none; available: "
        f"{store.format_versions(store.list_releases(releases))}; choose one: irgen rollback "
        "VERSION"
    )
