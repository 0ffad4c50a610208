"""A bucket's prefix as a source, as if it were a folder, and an image list in a bucket."""

from functools import partial

from irgen.catalog.sources import image_list, remote, s3
from irgen.catalog.sources.listing import (
    Entry,
    Listing,
    count_skipped,
    is_candidate,
    list_parents,
    map_keys,
)


def list_bucket(client: s3.Client, url: str, ahead: int) -> Listing:
    """List every image below the prefix `url` as if it were a folder.

    Raises SourceError if it cannot be listed or holds no image.
    """
    prefix = _as_folder(url)
    objects = _list_below(client, prefix)
    folders = list_parents(objects)
    keys, empty_folders, top = map_keys(filter(is_candidate, objects), folders, prefix)
    return Listing(
        entries=(_make_entry(client, prefix, key, objects[keys[key]]) for key in sorted(keys)),
        count=len(keys),
        empty_folders=empty_folders,
        top=top,
        ahead=ahead,
        skipped=count_skipped(objects),
    )


def list_named(client: s3.Client, url: str, content: bytes, ahead: int) -> Listing:
    """List the images that the list at `url` with this content names, by path relative to it.

    Raises SourceError as a local list does.
    """
    prefix = _as_folder(url.rpartition("/")[0])
    columns = image_list.read_columns(content, url)
    objects = _list_below(client, prefix)
    entries = {
        key: _make_entry(client, prefix, key, objects[key])
        for key in columns["key"]
        if key in objects
    }
    return image_list.make_listing(columns, url, prefix, entries, ahead)


def _as_folder(url: str) -> str:
    bucket, prefix = s3.split_url(url)
    return f"s3://{bucket}/{prefix.rstrip('/')}/" if prefix.strip("/") else f"s3://{bucket}/"


def _list_below(client: s3.Client, prefix: str) -> dict[str, s3.Object]:
    start = len(s3.split_url(prefix)[1])
    return {item.key[start:]: item for item in s3.list_objects(client, prefix) if item.key[start:]}


def _make_entry(client: s3.Client, prefix: str, key: str, listed: s3.Object) -> Entry:
    url = f"s3://{s3.split_url(prefix)[0]}/{listed.key}"
    listed_file, look = s3.as_remote(client, url, listed), partial(s3.look_at, client, url)
    read = partial(remote.read_image, listed_file, look, client.retries)
    return Entry(key, listed_file.state, read)
