"""What a source holds: its images in order, its empty folders, and what a list says of them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import polars as pl

from irgen.catalog.datasets.annotations import annotated, is_annotation
from irgen.errors import SourceError

IMAGE_ENDINGS = (
    *(".jpg", ".jpeg", ".png", ".gif", ".bmp"),
    *(".tif", ".tiff", ".webp", ".ppm", ".pgm"),
)
NOT_OURS = "__MACOSX"  # what macOS puts into archives beside the files
ROLE_FOLDERS = {
    "train": "train",
    "training": "train",
    "database": "train",
    "gallery": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "test": "query",
    "query": "query",
    "queries": "query",
}


class Fetched(NamedTuple):
    """An image's bytes, and the state they are of, which may be later than the listing."""

    content: bytes
    etag: str | None
    version: str | None


@dataclass(frozen=True)
class Entry:
    """One image of a source.

    ``etag`` changes when the content may have; None: only the content itself tells. ``read`` gives
    the bytes, and is called, if at all, before the next entry is drawn, unless the listing can be
    read ahead; it gives None if the image has gone since. No ``read``: the list names the image,
    but it is not there.
    """

    key: str
    etag: str | None
    read: Callable[[], bytes | Fetched | None] | None


@dataclass(frozen=True, kw_only=True)
class Listing:
    """Everything a source holds; ``entries`` can be gone through once, ``count`` is their number.

    ``columns``: for a list, what it says of each key (key, label, and perhaps role, id, metadata).
    ``ahead``: how many images may be read at once, by other threads and before their turn.
    """

    entries: Iterable[Entry]
    count: int
    empty_folders: tuple[str, ...] = ()
    columns: pl.DataFrame | None = None
    ahead: int = 0


@dataclass(frozen=True, kw_only=True)
class Source:
    """A place images come from. Equal stamps: nothing has changed; None: ``load`` and look.

    ``load`` raises SourceError if the source is missing, unreadable, unsafe or empty.
    """

    name: str
    stamp: str | None
    load: Callable[[], Listing] = field(repr=False)


def is_image(path: str) -> bool:
    """Whether a file counts: an image's ending, whatever its case, and nothing hidden on the way.

    >>> [is_image(p) for p in ("cat/1.JPG", "LICENSE", "cat/._1.jpg", "__MACOSX/cat/1.jpg")]
    [True, False, False, False]
    """
    return path.lower().endswith(IMAGE_ENDINGS) and not is_hidden(path)


def may_count(path: str) -> bool:
    """Whether a file is an image, or an annotation file if the source turns out to have a set's."""
    return is_image(path) or (is_annotation(path) and not is_hidden(path))


def counted(paths: Iterable[str], source: str) -> list[str]:
    """The images among files that ``may_count``, and the annotation files of a published set.

    Raises SourceError if there is no image.
    """
    images: list[str] = []
    others: list[str] = []
    for path in paths:
        (images if is_image(path) else others).append(path)
    refuse_empty(len(images), source)
    return [*images, *annotated(others)]


def is_hidden(path: str) -> bool:
    """Whether any part of a path starts with a dot or belongs to macOS alone."""
    if path.startswith(".") or "/." in path:
        return True
    return NOT_OURS in path and NOT_OURS in path.split("/")


def common_top(images: Iterable[str], folders: Iterable[str]) -> str:
    """The one folder, with its slash, that wraps everything and says nothing; "" if there is none.

    A role's folder says something, and so does a class folder that holds images itself.

    >>> common_top(["set/cat/1.png", "set/dog/2.png"], ["set", "set/cat", "set/dog", "set/owl"])
    'set/'
    >>> common_top(["train/cat/1.png"], []), common_top(["cat/1.png"], [])
    ('', '')
    """
    keys = list(images)
    named = (folder for folder in folders if folder and not is_hidden(folder))
    tops = {path.split("/")[0] for path in (*keys, *named)}
    if len(tops) != 1 or any(key.count("/") < 2 for key in keys):
        return ""
    (top,) = tops
    return "" if top.lower() in ROLE_FOLDERS else f"{top}/"


def empty_folders(images: Iterable[str], folders: Iterable[str]) -> list[str]:
    """The folders with neither an image nor a folder below them, each with its slash, sorted.

    >>> empty_folders(["cat/1.png"], ["cat", "dog", "train/owl", "train"])
    ['dog/', 'train/owl/']
    """
    named = {folder for folder in folders if folder and not is_hidden(folder)}
    holding = {path.rpartition("/")[0] for path in (*images, *named)}
    full = {parent for folder in holding for parent in _parents(folder)}
    return [f"{folder}/" for folder in sorted(named - full)]


def _parents(folder: str) -> list[str]:
    """The folder and those above it."""
    parts = folder.split("/")
    return ["/".join(parts[: depth + 1]) for depth in range(len(parts))]


def check_key(key: str, source: str) -> str:
    """``key`` itself; raises SourceError if a table cannot hold it."""
    try:
        key.encode("utf-8")
    except UnicodeEncodeError:
        shown = key.encode("utf-8", "backslashreplace").decode()
        raise SourceError(f"{source}: the name {shown!r} is not UTF-8; rename the file") from None
    return key


def refuse_empty(count: int, source: str) -> None:
    """Raises SourceError if a source holds no image."""
    if not count:
        endings = " ".join(ending[1:] for ending in IMAGE_ENDINGS)
        raise SourceError(
            f"{source} holds no image; files ending in {endings} count, in one folder a class"
        )
