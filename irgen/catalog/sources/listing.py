"""List the images of a source in order.

A kind of source is a function that returns a `Listing`; `open.py` names them all.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

import polars as pl

from irgen.errors import SourceError


class Fetched(NamedTuple):
    """Bytes of an image, and the etag of their state, which may be later than the listing's."""

    content: bytes
    etag: str | None
    version: str | None


@dataclass(frozen=True)
class Entry:
    """One image of a source.

    `etag`: changes when the content may have changed; None: only the content tells. `read`: returns
    the bytes, or None if the image has gone since; None: a list names the image, but it is not
    there. It raises UnreadableError if this image alone cannot be had. Call it before the next
    entry is drawn, unless `Listing.ahead` allows more. `problem`: why the image cannot be had, if
    the listing tells.
    """

    key: str
    etag: str | None
    read: Callable[[], bytes | Fetched | None] | None
    problem: str | None = None


def refuse(key: str, problem: str) -> Entry:
    """Return the entry of an image that cannot be had."""
    return Entry(key, "", None, problem)


@dataclass(frozen=True, kw_only=True)
class Listing:
    """Content of a source. `entries` can be iterated once; `count` is their number.

    `top`: the single top folder, with its slash, that was left out of the keys. `columns`: columns
    of an image list (key, label, and perhaps role, id; the user's in metadata). `ahead`: number of
    images that other threads may read in advance. `is_text`: the columns are texts, whatever they
    mean. `skipped`, `ignored`: number of files left out by ending, and by ignore pattern. `notes`:
    what else the user should know.
    """

    entries: Iterable[Entry]
    count: int
    empty_folders: tuple[str, ...] = ()
    top: str = ""
    columns: pl.DataFrame | None = None
    ahead: int = 0
    is_text: bool = False
    skipped: Mapping[str, int] = field(default_factory=dict)
    ignored: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Source:
    """A source of images. An unchanged stamp means unchanged images. Without a stamp (None), only
    `load` tells. `retried`: images that could not be had may be had under the same stamp.
    `types`: what the user declares for columns of a list.

    `load` raises SourceError if the source is missing, unreadable, unsafe or empty.
    """

    name: str
    stamp: str | None
    load: Callable[[], Listing] = field(repr=False)
    retried: bool = False
    types: Mapping[str, str] = field(default_factory=dict)


Read = Callable[[], Fetched | None]


def read_in_order(
    listing: Listing, is_needed: Callable[[Entry], bool]
) -> Iterator[tuple[Entry, Read]]:
    """Yield every entry with a function that returns its bytes, or None if the image has gone.

    Call that function, if at all, before the next entry is drawn. Entries that are needed are read
    ahead: at most `listing.ahead` at once, with twice as many waiting.
    """
    if not listing.ahead:
        yield from ((entry, partial(_fetch, entry)) for entry in listing.entries)
        return
    waiting: deque[tuple[Entry, Future[Fetched | None] | None]] = deque()
    pending = 0
    pool = ThreadPoolExecutor(listing.ahead, thread_name_prefix="read")
    try:
        for entry in listing.entries:
            future = pool.submit(_fetch, entry) if entry.read and is_needed(entry) else None
            waiting.append((entry, future))
            pending += future is not None
            while waiting and (waiting[0][1] is None or pending > 2 * listing.ahead):
                pending -= waiting[0][1] is not None
                yield _with_reader(*waiting.popleft())
        while waiting:
            yield _with_reader(*waiting.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def _with_reader(entry: Entry, future: Future[Fetched | None] | None) -> tuple[Entry, Read]:
    return entry, partial(_fetch, entry) if future is None else future.result


def _fetch(entry: Entry) -> Fetched | None:
    assert entry.read is not None, "only images that are there are read"
    content = entry.read()
    return Fetched(content, entry.etag, None) if isinstance(content, bytes) else content


def replace_top(listing: Listing, top: str, source: str) -> Listing:
    """Return a listing whose keys lack the folder `top` instead of the listing's own. Keys outside
    of `top` are whole paths. Raises SourceError, when drawn, for two images with one key."""
    if top == listing.top:
        return listing

    def rename(key: str) -> str:
        return f"{listing.top}{key}".removeprefix(top)

    def rename_entries() -> Iterator[Entry]:
        keys = set()
        for entry in listing.entries:
            key = rename(entry.key)
            if key in keys:
                raise SourceError(
                    f"{source}: {top}{key} and {key} would have one name, since images are named "
                    f"without {top}; rename one of their folders"
                )
            keys.add(key)
            yield replace(entry, key=key)

    empty_folders = tuple(filter(None, map(rename, listing.empty_folders)))
    return replace(listing, entries=rename_entries(), empty_folders=empty_folders, top=top)


def check_key(key: str, source: str) -> str:
    """Return `key`. Raises SourceError if a table cannot hold it."""
    try:
        key.encode("utf-8")
    except UnicodeEncodeError:
        shown = key.encode("utf-8", "backslashreplace").decode()
        raise SourceError(f"{source}: the name {shown!r} is not UTF-8; rename the file") from None
    return key
