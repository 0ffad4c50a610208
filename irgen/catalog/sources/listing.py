"""List the images of a source in order, by rules for which files count.

A kind of source is a function that returns a `Listing`; `open.py` names them all.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import PurePosixPath
from typing import NamedTuple

import polars as pl

from irgen.catalog.datasets.annotations import is_annotation, select_annotations
from irgen.errors import SourceError

IMAGE_ENDINGS = (
    *(".jpg", ".jpeg", ".png", ".gif", ".bmp"),
    *(".tif", ".tiff", ".webp", ".ppm", ".pgm"),
)
MACOS_FOLDER = "__MACOSX"  # macOS puts it into archives
ROLE_FOLDERS = {
    **dict.fromkeys(("train", "training", "database", "gallery"), "train"),
    **dict.fromkeys(("validation", "val", "valid"), "validation"),
    **dict.fromkeys(("test", "query", "queries"), "query"),
}


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
    mean. `skipped`: number of files by an ending that is not read.
    """

    entries: Iterable[Entry]
    count: int
    empty_folders: tuple[str, ...] = ()
    top: str = ""
    columns: pl.DataFrame | None = None
    ahead: int = 0
    is_text: bool = False
    skipped: Mapping[str, int] = field(default_factory=dict)
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


def is_image(path: str) -> bool:
    """Tell whether a file counts: it ends as images do, in any case, and nothing is hidden.

    >>> [is_image(p) for p in ("cat/1.JPG", "LICENSE", "cat/._1.jpg", "__MACOSX/cat/1.jpg")]
    [True, False, False, False]
    """
    return path.lower().endswith(IMAGE_ENDINGS) and not is_hidden(path)


def is_candidate(path: str) -> bool:
    """Tell whether a file is an image, or an annotation file if the source holds a data set."""
    return is_image(path) or (is_annotation(path) and not is_hidden(path))


def count_skipped(paths: Iterable[str]) -> dict[str, int]:
    """Count files that are neither image nor annotation nor hidden by their ending, most first.

    >>> count_skipped(["cat/1.HEIC", "cat/2.heic", "cat/3.png", "README", ".git/x.zip"])
    {'.heic': 2, '': 1}
    """
    skipped = (path for path in paths if not is_hidden(path) and not is_candidate(path))
    return dict(Counter(PurePosixPath(path).suffix.lower() for path in skipped).most_common())


def is_hidden(path: str) -> bool:
    """Tell whether any part of a path starts with a dot or belongs to macOS alone."""
    if path.startswith(".") or "/." in path:
        return True
    return MACOS_FOLDER in path and MACOS_FOLDER in path.split("/")


def map_keys(
    paths: Iterable[str], folders: Iterable[str], source: str
) -> tuple[dict[str, str], tuple[str, ...], str]:
    """Return key → path of the images and a data set's annotation files, the empty folders, and the
    single top folder that is left out of the keys, or "".

    `paths`: the candidates. Raises SourceError if there is no image, or for a name that is not
    UTF-8.
    """
    images: list[str] = []
    others: list[str] = []
    for path in paths:
        (images if is_image(path) else others).append(path)
    refuse_empty(len(images), source)
    images += select_annotations(others)
    folders = [*folders]
    top = find_common_top(images, folders)
    keys = {check_key(path.removeprefix(top), source): path for path in images}
    empty = [folder.removeprefix(top) for folder in find_empty_folders(images, folders)]
    return keys, tuple(check_key(folder, source) for folder in empty if folder), top


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


def find_common_top(images: Iterable[str], folders: Iterable[str]) -> str:
    """Return the single top folder, with its slash, if it has no meaning, else "".

    A role's folder has a meaning, and so does a class folder, which holds images itself.

    >>> find_common_top(["set/cat/1.png", "set/dog/2.png"], ["set", "set/cat", "set/owl"])
    'set/'
    >>> find_common_top(["train/cat/1.png"], []), find_common_top(["cat/1.png"], [])
    ('', '')
    """
    keys = list(images)
    visible = (folder for folder in folders if folder and not is_hidden(folder))
    tops = {path.split("/")[0] for path in (*keys, *visible)}
    if len(tops) != 1 or any(key.count("/") < 2 for key in keys):
        return ""
    (top,) = tops
    return "" if top.lower() in ROLE_FOLDERS else f"{top}/"


def find_empty_folders(images: Iterable[str], folders: Iterable[str]) -> list[str]:
    """Return the folders, with a slash, that have neither image nor folder below them, sorted.

    >>> find_empty_folders(["cat/1.png"], ["cat", "dog", "train/owl", "train"])
    ['dog/', 'train/owl/']
    """
    visible = {folder for folder in folders if folder and not is_hidden(folder)}
    full = list_parents([*images, *visible])
    return [f"{folder}/" for folder in sorted(visible - full)]


def list_parents(paths: Iterable[str]) -> set[str]:
    """Return every folder that one of the paths lies in; a path that ends in a slash is one."""
    parents: set[str] = set()
    for path in paths:
        folder = path.rpartition("/")[0]
        while folder and folder not in parents:
            parents.add(folder)
            folder = folder.rpartition("/")[0]
    return parents


def check_key(key: str, source: str) -> str:
    """Return `key`. Raises SourceError if a table cannot hold it."""
    try:
        key.encode("utf-8")
    except UnicodeEncodeError:
        shown = key.encode("utf-8", "backslashreplace").decode()
        raise SourceError(f"{source}: the name {shown!r} is not UTF-8; rename the file") from None
    return key


def refuse_empty(count: int, source: str) -> None:
    """Raise SourceError if a source holds no image."""
    if not count:
        endings = " ".join(ending[1:] for ending in IMAGE_ENDINGS)
        raise SourceError(
            f"{source} holds no image; files ending in {endings} count, in one folder a class"
        )
