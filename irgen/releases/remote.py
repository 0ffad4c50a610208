"""Releases in an S3 bucket, for other machines: the same folders, and a file that names the
champion.

<remote>/0007-ab12cd34/…     an index; its release.json is written last and deleted first
<remote>/champion.json       version, name and bundle of the release that is served
"""

import re
from pathlib import Path
from typing import Any

from irgen.catalog.sources import s3, s3_client
from irgen.catalog.sources.s3_client import Client
from irgen.errors import ReleaseError
from irgen.params import Release as Settings
from irgen.releases import release, store
from irgen.releases.release import RECORD, Release

CHAMPION = "champion.json"
FOLDER = re.compile(r"\d{4,}-[0-9a-f]{8}")
RETRIES = 4  # of a call; the next release repeats what failed


def connect(endpoint: str) -> Client:
    """Return a client of the bucket. Raise SourceError if boto3 finds no valid configuration."""
    return s3_client.connect(endpoint, retries=RETRIES)


def join_url(remote: str, name: str) -> str:
    """Return the URL of a release's folder, or of a file beside the releases.

    >>> join_url("s3://shop/index/", "0007-ab12cd34")
    's3://shop/index/0007-ab12cd34'
    """
    return f"{remote.rstrip('/')}/{name}"


def push_champion(settings: Settings, releases: Path, champion: Release) -> Release:
    """Bring the bucket up to date: push the champion, say that it is served, delete old releases.

    ``releases``: the release store. Return the champion, with its URL. Without a bucket in
    ``settings`` do nothing. Raise SourceError, and ReleaseError if another machine writes another
    champion at the same time.
    """
    if not settings.remote:
        return champion
    client = connect(settings.endpoint)
    url = join_url(settings.remote, champion.name)
    push_release(client, releases / champion.name, champion, url)
    champion = store.update(releases, champion, pushed=url)
    write_champion(client, settings.remote, champion)
    prune(client, settings.remote, champion, settings.keep)
    return champion


def push_release(client: Client, folder: Path, pushed: Release, url: str) -> None:
    """Copy the release in ``folder`` to ``url``; skip the files that are there. Raise
    SourceError."""
    prefix = s3.split_url(url)[1]
    sizes = {item.key: item.size for item in s3.list_objects(client, f"{url}/")}
    for name, file in pushed.files.items():
        if sizes.get(f"{prefix}/{name}") != file["size"]:
            s3.put_file(client, folder / name, f"{url}/{name}")
    s3.put_file(client, folder / RECORD, f"{url}/{RECORD}")


def write_champion(client: Client, remote: str, champion: Release) -> None:
    """Write to the bucket which release is served. Raise SourceError, and ReleaseError if another
    machine writes another one at the same time."""
    url = join_url(remote, CHAMPION)
    new = {"version": champion.version, "name": champion.name, "bundle": champion.bundle}
    current = s3.get_json(client, url)
    if current is None:
        is_written = s3.put_json(client, url, new, new=True)
    else:
        is_written = current[0] == new or s3.put_json(client, url, new, replacing=current[1])
    if not is_written:
        raise ReleaseError(f"another machine changed {url} at the same time: try again")


def read_champion(client: Client, remote: str) -> dict[str, Any] | None:
    """Return ``version``, ``name`` and ``bundle`` of the bucket's champion; None if there is none.
    Raise SourceError."""
    current = s3.get_json(client, join_url(remote, CHAMPION))
    return None if current is None else current[0]


def list_names(client: Client, remote: str) -> list[str]:
    """Return the folder names of the complete releases, newest first. Raise SourceError."""
    folders = _list_folders(client, remote)
    return sorted((name for name, is_complete in folders.items() if is_complete), reverse=True)


def _list_folders(client: Client, remote: str) -> dict[str, bool]:
    """Return the folders of releases by name, and whether each is complete."""
    prefix = s3.split_url(join_url(remote, ""))[1]
    folders: dict[str, bool] = {}
    for key in s3.list_keys(client, join_url(remote, "")):
        name, _, file = key.removeprefix(prefix).partition("/")
        if FOLDER.fullmatch(name) and file:
            folders[name] = folders.get(name, False) or file == RECORD
    return folders


def parse_version(name: str) -> int:
    """Return the version in a folder's name.

    >>> parse_version("0007-ab12cd34")
    7
    """
    return int(name.partition("-")[0])


def pull_release(client: Client, remote: str, name: str, releases: Path) -> Release:
    """Add the release with this folder name to the store ``releases``, and return it. Raise
    SourceError if it cannot be read, ReleaseError if it is not the one that was pushed."""
    url = join_url(remote, name)
    record = s3.get_json(client, f"{url}/{RECORD}")
    if record is None:
        raise ReleaseError(f"there is no release at {url}: it was pruned, or its push broke off")
    pulled = release.parse(record[0] | {"pushed": url, "state": "released"}, f"{url}/{RECORD}")
    if pulled.name != name or release.digest_files(pulled.files) != pulled.bundle:
        raise ReleaseError(f"{url}/{RECORD} belongs to another release: push {name} again")
    store.add_release(releases, pulled, lambda folder: _download(client, url, pulled, folder))
    return pulled


def _download(client: Client, url: str, pulled: Release, folder: Path) -> None:
    for name in pulled.files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if not s3.get_file(client, f"{url}/{name}", folder / name):
            raise ReleaseError(f"{url}/{name} is missing: push {pulled.name} again")


def prune(client: Client, remote: str, champion: Release, keep: int) -> list[str]:
    """Delete all releases, incomplete ones too, but the champion, the one before it and the
    ``keep`` newest others. Return the deleted names. Raise SourceError."""
    folders = _list_folders(client, remote)
    spared = (champion.version, champion.previous)
    others = [name for name in folders if not (folders[name] and parse_version(name) in spared)]
    old = sorted(others, reverse=True)[keep:]  # without a record, a folder is an interrupted push
    for name in old:
        delete_release(client, remote, name)
    return old


def delete_release(client: Client, remote: str, name: str) -> None:
    """Delete the folder of a release, if it is there. Raise SourceError."""
    url = join_url(remote, name)
    s3.delete(client, [f"{url}/{RECORD}"])
    keys = s3.list_keys(client, f"{url}/")
    s3.delete(client, [f"s3://{s3.split_url(url)[0]}/{key}" for key in keys])
