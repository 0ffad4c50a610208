"""Name the images of a source: keys that a table can hold, without a top folder that says
nothing."""

import unicodedata
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

from irgen.catalog.datasets.annotations import is_annotation
from irgen.catalog.sources.selection import Selection, make_empty_error
from irgen.errors import SourceError

ROLE_FOLDERS = {
    **dict.fromkeys(("train", "training", "database", "gallery"), "train"),
    **dict.fromkeys(("validation", "val", "valid"), "validation"),
    **dict.fromkeys(("test", "query", "queries"), "query"),
}


class Names(NamedTuple):
    """Keys of a source. `paths`: the path of each key; `empty_folders`: keys of folders without an
    image, with a slash; `top`: the single top folder that the keys lack, with a slash, or ""."""

    paths: dict[str, str]
    empty_folders: tuple[str, ...]
    top: str


def name_files(selection: Selection[Any], source: str) -> Names:
    """Return the keys of the files that count, and of the folders without an image.

    Raises SourceError if there is no image, or if two files would have one key.
    """
    if all(map(is_annotation, selection.files)):
        raise make_empty_error(source, selection)
    paths = make_keys(selection.files, source)
    folders = {make_key(folder) for folder in selection.folders}
    top = find_common_top(paths, folders)
    empty = (folder.removeprefix(top) for folder in find_empty_folders(paths, folders))
    keys = {key.removeprefix(top): path for key, path in paths.items()}
    return Names(keys, tuple(filter(None, empty)), top)


def make_keys(paths: Iterable[str], source: str) -> dict[str, str]:
    r"""Return the paths by key. Raises SourceError if two paths would have one key.

    >>> list(make_keys(["e\u0301/1.jpg"], "shop")) == ["\u00e9/1.jpg"]
    True
    """
    keys: dict[str, str] = {}
    for path in sorted(paths, key=lambda path: (make_key(path) != path, path)):
        key = make_key(path)
        if key in keys:  # it differs in its accents alone: keep them as they are
            key = _escape(path)
        if key in keys:
            raise SourceError(f"{source}: two files would both be named {key!r}; rename one")
        keys[key] = path
    return keys


def make_key(path: str) -> str:
    r"""Return a path as a key: accents composed (NFC), and bytes that are no UTF-8 escaped.

    >>> make_key("e\u0301") == "\u00e9", make_key("caf\udce9")
    (True, 'caf\\udce9')
    """
    return path if path.isascii() else unicodedata.normalize("NFC", _escape(path))


def _escape(path: str) -> str:
    return path.encode("utf-8", "backslashreplace").decode()


def find_common_top(keys: Collection[str], folders: Iterable[str]) -> str:
    """Return the single top folder, with its slash, if it has no meaning, else "".

    A role's folder has a meaning, and so does a class folder, which holds images itself. A few
    images beside the folder change nothing.

    >>> find_common_top(["set/cat/1.png", "set/dog/2.png"], ["set", "set/cat", "set/owl"])
    'set/'
    >>> find_common_top(["train/cat/1.png"], []), find_common_top(["cat/1.png"], [])
    ('', '')
    """
    inner = [key for key in keys if "/" in key or is_annotation(key)]
    tops = {path.split("/")[0] for path in (*inner, *filter(is_visible, folders))}
    if len(tops) != 1 or 2 * len(inner) <= len(keys) or any(key.count("/") < 2 for key in inner):
        return ""
    (top,) = tops
    return "" if top.lower() in ROLE_FOLDERS else f"{top}/"


def find_empty_folders(keys: Iterable[str], folders: Iterable[str]) -> list[str]:
    """Return the folders, with a slash, that have neither image nor folder below them, sorted;
    hidden ones do not count.

    >>> find_empty_folders(["cat/1.png"], ["cat", "dog", "train/owl", "train", ".config"])
    ['dog/', 'train/owl/']
    """
    visible = set(filter(is_visible, folders))
    full = list_parents([*keys, *visible])
    return [f"{folder}/" for folder in sorted(visible - full)]


def is_visible(folder: str) -> bool:
    """Tell whether a folder has a name, and no part of it begins with a dot."""
    return bool(folder) and not folder.startswith(".") and "/." not in folder


def list_parents(paths: Iterable[str]) -> set[str]:
    """Return every folder that one of the paths lies in; a path that ends in a slash is one."""
    parents: set[str] = set()
    for path in paths:
        folder = path.rpartition("/")[0]
        while folder and folder not in parents:
            parents.add(folder)
            folder = folder.rpartition("/")[0]
    return parents
