"""A bucket's prefix as a source, as if it were a folder, and an image list in a bucket."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain

from irgen.catalog.sources import image_list, s3
from irgen.catalog.sources.image_list import FindAddresses
from irgen.catalog.sources.keys import list_parents, name_files
from irgen.catalog.sources.list_paths import (
    ELSEWHERE,
    find_scheme,
    leads_out,
    normalise_path,
    spell,
)
from irgen.catalog.sources.listing import Entry, Listing, refuse
from irgen.catalog.sources.remote import Remote, use_present
from irgen.catalog.sources.s3_client import Client
from irgen.catalog.sources.selection import (
    START,
    Candidate,
    Rules,
    find_ignored,
    is_vague,
    make_rules,
    select_files,
)
from irgen.catalog.sources.transfer import read
from irgen.errors import UnreadableError


def list_bucket(client: Client, url: str, ahead: int, ignore: Sequence[str] = ()) -> Listing:
    """List every image below the prefix `url` as if it were a folder.

    Objects whose names do not tell what they are are looked into, `ahead` at once. `ignore`:
    patterns of what to leave out. Raises SourceError if the bucket cannot be listed or holds no
    image.
    """
    prefix, rules = _as_folder(url), make_rules(ignore)
    objects = _list_below(client, prefix)
    starts = _read_starts(client, prefix, objects, ahead, rules)
    files = (Candidate(key, key, partial(_get_start, starts, key)) for key in objects)
    folders = (Candidate(f"{key}/", key, bytes) for key in list_parents(objects))
    selection = select_files(chain(files, folders), rules)
    names = name_files(selection, prefix)
    return Listing(
        entries=(
            _make_entry(client, prefix, key, objects[names.paths[key]])
            for key in sorted(names.paths)
        ),
        count=len(names.paths),
        empty_folders=names.empty_folders,
        top=names.top,
        ahead=ahead,
        skipped=selection.skipped,
        ignored=selection.ignored,
    )


def _get_start(starts: Mapping[str, bytes], key: str) -> bytes:
    return starts.get(key, b"")


def _read_starts(
    client: Client, prefix: str, objects: Mapping[str, s3.Object], ahead: int, rules: Rules
) -> dict[str, bytes]:
    """Return the first bytes of the objects whose names say nothing."""
    vague = [
        key
        for key, item in objects.items()
        if is_vague(key) and item.size and not key.endswith("/") and not find_ignored(key, rules)
    ]
    with ThreadPoolExecutor(ahead, thread_name_prefix="look") as pool:
        starts = pool.map(partial(_read_start, client, prefix), [objects[key] for key in vague])
        return dict(zip(vague, starts, strict=True))


def _read_start(client: Client, prefix: str, item: s3.Object) -> bytes:
    url = f"s3://{s3.split_url(prefix)[0]}/{item.key}"
    states = [s3.as_remote(client, url, item)]

    def look() -> Remote | None:
        return states.pop() if states else s3.look_at(client, url)

    try:
        start = use_present(look, lambda state: read(state, client.retries, START))
    except UnreadableError:
        return b""
    return b"" if start is None else start.content


def list_named(
    client: Client, url: str, content: bytes, find_addresses: FindAddresses, ahead: int
) -> Listing:
    """List the images that the list at `url` with this content names, by path relative to it or by
    address, which `find_addresses` finds.

    Raises SourceError as a local list does.
    """
    prefix = _as_folder(url.rpartition("/")[0])

    def find_paths(texts: Sequence[str]) -> tuple[list[Entry], tuple[str, ...]]:
        objects = _list_below(client, prefix)
        return [_find_object(client, prefix, objects, text) for text in texts], ()

    return image_list.list_rows(content, url, find_paths, find_addresses, ahead)


def _find_object(client: Client, prefix: str, objects: dict[str, s3.Object], text: str) -> Entry:
    """Return the entry of the object that a path of a list means."""
    if leads_out(text) or find_scheme(text):
        return refuse(text, ELSEWHERE)
    for path in spell(text):
        for key in (path, normalise_path(path)):
            if key in objects:
                return _make_entry(client, prefix, key, objects[key])
    return Entry(normalise_path(text), "", None)


def _as_folder(url: str) -> str:
    bucket, prefix = s3.split_url(url)
    return f"s3://{bucket}/{prefix.rstrip('/')}/" if prefix.strip("/") else f"s3://{bucket}/"


def _list_below(client: Client, prefix: str) -> dict[str, s3.Object]:
    start = len(s3.split_url(prefix)[1])
    return {item.key[start:]: item for item in s3.list_objects(client, prefix) if item.key[start:]}


def _make_entry(client: Client, prefix: str, key: str, listed: s3.Object) -> Entry:
    url = f"s3://{s3.split_url(prefix)[0]}/{listed.key}"
    listed_file, look = s3.as_remote(client, url, listed), partial(s3.look_at, client, url)
    read = partial(s3.read_image, client, listed_file, look)
    return Entry(key, listed_file.state, read)
