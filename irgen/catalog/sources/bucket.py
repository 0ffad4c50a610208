"""A bucket's prefix as a source, as if it were a folder, and an image list in a bucket."""

from collections.abc import Sequence
from functools import partial

from irgen.catalog.sources import image_list, s3
from irgen.catalog.sources.image_list import Far
from irgen.catalog.sources.list_paths import ELSEWHERE, find_scheme, leads_out, make_key, spell
from irgen.catalog.sources.listing import (
    Entry,
    Listing,
    count_skipped,
    is_candidate,
    list_parents,
    map_keys,
    refuse,
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


def list_named(client: s3.Client, url: str, content: bytes, far: Far, ahead: int) -> Listing:
    """List the images that the list at `url` with this content names, by path relative to it or by
    address, which `far` finds.

    Raises SourceError as a local list does.
    """
    prefix = _as_folder(url.rpartition("/")[0])

    def near(texts: Sequence[str]) -> tuple[list[Entry], tuple[str, ...]]:
        objects = _list_below(client, prefix)
        return [_find_object(client, prefix, objects, text) for text in texts], ()

    return image_list.list_rows(content, url, near, far, ahead)


def _find_object(client: s3.Client, prefix: str, objects: dict[str, s3.Object], text: str) -> Entry:
    """Return the entry of the object that a path of a list means."""
    if leads_out(text) or find_scheme(text):
        return refuse(text, ELSEWHERE)
    for path in spell(text):
        for key in (path, make_key(path)):
            if key in objects:
                return _make_entry(client, prefix, key, objects[key])
    return Entry(make_key(text), "", None)


def _as_folder(url: str) -> str:
    bucket, prefix = s3.split_url(url)
    return f"s3://{bucket}/{prefix.rstrip('/')}/" if prefix.strip("/") else f"s3://{bucket}/"


def _list_below(client: s3.Client, prefix: str) -> dict[str, s3.Object]:
    start = len(s3.split_url(prefix)[1])
    return {item.key[start:]: item for item in s3.list_objects(client, prefix) if item.key[start:]}


def _make_entry(client: s3.Client, prefix: str, key: str, listed: s3.Object) -> Entry:
    url = f"s3://{s3.split_url(prefix)[0]}/{listed.key}"
    listed_file, look = s3.as_remote(client, url, listed), partial(s3.look_at, client, url)
    read = partial(s3.read_image, client, listed_file, look)
    return Entry(key, listed_file.state, read)
