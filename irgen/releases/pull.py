"""Releases brought here from the bucket, by a machine that does not have them."""

from pathlib import Path

from irgen.catalog.sources.s3 import Client
from irgen.errors import ReleaseError
from irgen.params import Release as Settings
from irgen.releases import remote, store
from irgen.releases.release import Release


def adopt(place: Path, settings: Settings) -> Release | None:
    """The champion that the bucket has, brought here and made the champion here; None if there is
    none. For who is alone with the shelf. Raises SourceError if the bucket does not answer."""
    if not settings.remote:
        return None
    client = remote.connect(settings.endpoint)
    said = remote.served(client, settings.remote)
    if said is None:
        return None
    one = _brought(place, client, settings.remote, said["name"])
    store.promote(place, one)
    return one


def fetch(place: Path, settings: Settings, version: int | None = None) -> Release:
    """Brings a release here. The one that is served by the bucket's word is served here, too, and
    what ``settings`` do not keep goes; that ``version`` only if none is yet.

    Raises ReleaseError if no bucket is set or it has no such release, SourceError if it does not
    answer.
    """
    if not settings.remote:
        raise ReleaseError("params.yaml: release: remote is empty: there is nowhere to fetch from")
    client = remote.connect(settings.endpoint)
    with store.alone(place):
        one = _brought(place, client, settings.remote, _name(client, settings.remote, version))
        if version is None or not (place / store.CHAMPION).exists():
            store.promote(place, one)
            _make_room(place, one, settings.keep)
        return one


def _make_room(place: Path, served: Release, keep: int) -> None:
    """Takes what is not kept off the shelf, but for what the bucket never had."""
    for old in store.to_prune(store.all_releases(place), served, keep):
        if old.pushed:
            store.drop(place, old)


def _brought(place: Path, client: Client, where: str, name: str) -> Release:
    for one in store.all_releases(place):
        if one.name == name:
            return one
    return remote.fetch(client, where, name, place)


def _name(client: Client, where: str, version: int | None) -> str:
    """The folder's name of a version in the bucket, of the champion's by default."""
    if version is None and (said := remote.served(client, where)) is not None:
        return said["name"]
    there = remote.names(client, where)
    for name in there:
        if int(name.partition("-")[0]) == version:
            return name
    what = "no champion" if version is None else f"no release {version}"
    raise ReleaseError(f"{where} has {what}; there: {', '.join(there) or 'none'}")
