"""A bucket's prefix as a source, as if it were a folder, and a list in a bucket."""

from collections.abc import Callable, Iterable
from functools import partial

from irgen.catalog.sources import lists, s3
from irgen.catalog.sources.listing import (
    Entry,
    Listing,
    check_key,
    common_top,
    counted,
    empty_folders,
    may_count,
)
from irgen.catalog.sources.remote import Remote, read_image, state


def list_bucket(client: s3.Client, url: str, ahead: int) -> Listing:
    """Every image below the prefix ``url``, by its key relative to that; a single top folder is
    left out of the keys. The annotation files of a published set are listed as its images are.
    Raises SourceError if it cannot be listed or holds no image."""
    prefix = _folder(url)
    found = {name: one for name, one in _below(client, prefix).items() if name}
    images = counted(filter(may_count, found), prefix)
    folders = _folders(found)
    top = common_top(images, folders)
    keys = sorted((check_key(name.removeprefix(top), prefix), name) for name in images)
    empty = [folder.removeprefix(top) for folder in empty_folders(images, folders)]
    return Listing(
        entries=(_entry(client, prefix, key, found[name]) for key, name in keys),
        count=len(keys),
        empty_folders=tuple(check_key(folder, prefix) for folder in empty if folder),
        ahead=ahead,
    )


def list_bucket_table(client: s3.Client, url: str, content: bytes, ahead: int) -> Listing:
    """The images that the list at ``url`` with this content names, by path relative to it. Raises
    SourceError as a local list does."""
    prefix = _folder(url.rpartition("/")[0])
    columns = lists.read_columns(content, url)
    there = _below(client, prefix)
    keys = sorted(columns["key"])
    lists.refuse_missing({key: key in there for key in keys}, url, prefix)
    return Listing(
        entries=(_entry(client, prefix, key, there.get(key)) for key in keys),
        count=len(keys),
        columns=columns,
        ahead=ahead,
    )


def _folder(url: str) -> str:
    bucket, prefix = s3.split(url)
    return f"s3://{bucket}/{prefix.rstrip('/')}/" if prefix.strip("/") else f"s3://{bucket}/"


def _below(client: s3.Client, prefix: str) -> dict[str, s3.Object]:
    start = len(s3.split(prefix)[1])
    return {one.key[start:]: one for one in s3.list_objects(client, prefix)}


def _folders(names: Iterable[str]) -> set[str]:
    """The folders that names lie in; a name that ends in a slash is one itself."""
    folders: set[str] = set()
    for name in names:
        folder = name.rpartition("/")[0]
        while folder and folder not in folders:
            folders.add(folder)
            folder = folder.rpartition("/")[0]
    return folders


def _entry(client: s3.Client, prefix: str, key: str, listed: s3.Object | None) -> Entry:
    if listed is None:
        return Entry(key, "", None)
    url = f"s3://{s3.split(prefix)[0]}/{listed.key}"
    look: Callable[[], Remote | None] = partial(s3.look_at, client, url)
    first = s3.as_remote(client, url, listed)
    return Entry(key, state(first), partial(read_image, first, look, client.retries))
