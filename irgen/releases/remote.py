"""Releases in a bucket, for other machines: the same folders, and which of them is served.

<remote>/0007-ab12cd34/…             an index; its release.json is the last to come and first to go
<remote>/champion.json               the release that is served
"""

import re
from pathlib import Path
from typing import Any

from irgen.catalog.sources import s3
from irgen.errors import ReleaseError
from irgen.releases import release, store
from irgen.releases.release import ABOUT, Release

SERVED = "champion.json"
FOLDER = re.compile(r"\d{4,}-[0-9a-f]{8}")
RETRIES = 4  # of a call; what fails is done by the next release


def connect(endpoint: str) -> s3.Client:
    """A way into the bucket. Raises SourceError if boto3 finds no valid configuration."""
    return s3.client(endpoint, retries=RETRIES)


def place_of(remote: str, name: str) -> str:
    """Where a release of that folder's name is.

    >>> place_of("s3://shop/index/", "0007-ab12cd34")
    's3://shop/index/0007-ab12cd34'
    """
    return f"{remote.rstrip('/')}/{name}"


def push(client: s3.Client, folder: Path, one: Release, place: str) -> None:
    """Copies the release in ``folder`` to ``place``, but for what is there already. Raises
    SourceError."""
    prefix = s3.split(place)[1]
    there = {each.key: each.size for each in s3.list_objects(client, f"{place}/")}
    for name, about in one.files.items():
        if there.get(f"{prefix}/{name}") != about["size"]:
            s3.put_file(client, folder / name, f"{place}/{name}")
    s3.put_file(client, folder / ABOUT, f"{place}/{ABOUT}")


def announce(client: s3.Client, remote: str, one: Release) -> None:
    """Says there which release is served. Raises SourceError, and ReleaseError if another machine
    is saying something else at the same time."""
    said = {"version": one.version, "name": one.name, "bundle": one.bundle}
    place = place_of(remote, SERVED)
    known = s3.get_json(client, place)
    if known is None:
        done = s3.put_json(client, place, said, new=True)
    else:
        done = known[0] == said or s3.put_json(client, place, said, replacing=known[1])
    if not done:
        raise ReleaseError(f"{place} was changed by another machine in this moment")


def served(client: s3.Client, remote: str) -> dict[str, Any] | None:
    """Which release is served, by its ``version``, ``name`` and ``bundle``; None if none is. Raises
    SourceError if that cannot be told."""
    found = s3.get_json(client, place_of(remote, SERVED))
    return None if found is None else found[0]


def names(client: s3.Client, remote: str) -> list[str]:
    """The folders' names of the releases that are whole, the newest first. Raises SourceError."""
    return sorted((name for name, whole in _folders(client, remote).items() if whole), reverse=True)


def _folders(client: s3.Client, remote: str) -> dict[str, bool]:
    """The releases' folders, and whether they are whole."""
    prefix = s3.split(place_of(remote, ""))[1]
    found: dict[str, bool] = {}
    for key in s3.list_keys(client, place_of(remote, "")):
        name, _, rest = key.removeprefix(prefix).partition("/")
        if FOLDER.fullmatch(name) and rest:
            found[name] = found.get(name, False) or rest == ABOUT
    return found


def fetch(client: s3.Client, remote: str, name: str, into: Path) -> Release:
    """Puts the release of that folder's name on the shelf ``into``, and gives it. Raises
    SourceError if it cannot be had, ReleaseError if it is not the one that was pushed."""
    place = place_of(remote, name)
    about = s3.get_json(client, f"{place}/{ABOUT}")
    if about is None:
        raise ReleaseError(f"there is no release at {place}: it was pruned, or not pushed whole")
    one = release.parsed(about[0], f"{place}/{ABOUT}")
    if one.name != name or release.bundle_digest(one.files) != one.bundle:
        raise ReleaseError(f"{place}/{ABOUT} is of another release: push {name} again")
    one = one.but(pushed=place, state="released")  # nothing else is pushed
    store.put(into, one, lambda new: download(client, place, one, new))
    return one


def download(client: s3.Client, place: str, one: Release, folder: Path) -> None:
    """Fetches the files of the release at ``place`` into ``folder``. Raises SourceError, and
    ReleaseError if one is missing."""
    for name in one.files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if not s3.get_file(client, f"{place}/{name}", folder / name):
            raise ReleaseError(f"{place}/{name} is missing: push {one.name} again")


def prune(client: s3.Client, remote: str, stay: set[str], keep: int) -> list[str]:
    """Deletes all releases but those named in ``stay`` and the ``keep`` newest others, and whatever
    is left of a push that was broken off and is older than those; gives the names of what went.
    Raises SourceError."""
    others = sorted(_folders(client, remote).keys() - stay, reverse=True)
    for name in others[keep:]:
        place = place_of(remote, name)
        s3.delete(client, [f"{place}/{ABOUT}"])
        s3.delete(
            client,
            [f"s3://{s3.split(place)[0]}/{key}" for key in s3.list_keys(client, f"{place}/")],
        )
    return others[keep:]
