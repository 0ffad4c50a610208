"""Read the paths of a list as people write them, and find the files that they mean."""

import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from urllib.parse import unquote, urlsplit

from irgen.catalog.sources.listing import Entry, refuse
from irgen.catalog.sources.local import explain, make_entry

SCHEME = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
DRIVE = re.compile(r"/?([a-z]:)?[\\/]", re.IGNORECASE)
SAMPLE = 1000  # paths that tell which folder of another machine is here
OUTSIDE = "it lies outside of the list's folder; set download.outside to true if that is meant"
ELSEWHERE = "a list from elsewhere names no file of this machine, and nothing above its folder"


def find_scheme(text: str) -> str:
    r"""Return the scheme of an address in lower case; "" for a path, also one of Windows.

    >>> find_scheme("HTTPS://shop.example/1.jpg"), find_scheme(r"C:\shop\1.jpg")
    ('https', '')
    """
    match = SCHEME.match(text.strip())
    return match[1].lower() if match else ""


def spell(text: str) -> Iterator[str]:
    r"""Yield the paths that a text may mean, as it stands first: without blanks around it, with the
    backslashes of Windows turned, percent-decoded, with composed or decomposed accents.

    >>> list(spell(r"i\a%20b.jpg"))
    ['i\\a%20b.jpg', 'i/a%20b.jpg', 'i/a b.jpg']
    """
    turned = text.strip().replace("\\", "/")
    decoded = unquote(turned)
    accents = [unicodedata.normalize(form, decoded) for form in ("NFC", "NFD")]
    yield from dict.fromkeys((text, text.strip(), turned, decoded, *accents))


def leads_out(path: str) -> bool:
    """Tell whether a path is absolute, or leads out of the folder that it counts from.

    >>> [leads_out(path) for path in ("a/../1.jpg", "a/../../1.jpg", "/1.jpg", r"C:\\1.jpg")]
    [False, True, True, True]
    """
    turned = path.strip().replace("\\", "/")
    return DRIVE.match(turned) is not None or os.path.normpath(turned).startswith("..")


def find_files(
    texts: Sequence[str], folder: Path, outside: bool
) -> tuple[list[Entry], tuple[str, ...]]:
    """Return the entries of the files that the paths of a list in `folder` mean, and notes.

    Paths count from the folder. Absolute paths that are not there are those of another machine:
    what they have in common is replaced by `folder` if files are there then. `outside`: also read
    files outside of `folder`; else they have a problem.
    """
    paths = [_read_file_url(text) for text in texts]
    root = _find_root([path for path in paths if DRIVE.match(path)], folder)
    inside = folder.resolve()
    entries = [_find_file(path, root, folder, inside, outside) for path in paths]
    note = f"paths that begin with {root}, which is not here, are read below {folder}/"
    return entries, ((note,) if root else ())


def _read_file_url(text: str) -> str:
    """Return the path that a file:// address names; a path as it is."""
    if find_scheme(text) != "file":
        return text
    parts = urlsplit(text.strip())
    host = "" if parts.netloc in ("", "localhost") else f"//{parts.netloc}"
    path = host + unquote(parts.path)
    return path[1:] if DRIVE.match(path[1:]) and not host else path


def _find_root(paths: Sequence[str], folder: Path) -> str:
    """Return the beginning of absolute paths for which `folder` stands; "" if none does."""
    turned = [path.strip().replace("\\", "/") for path in paths if not os.path.lexists(path)]
    sample = turned[:SAMPLE]
    parents = [path.split("/")[:-1] for path in sample]
    levels = zip(*parents, strict=False)
    common = [names[0] for names in takewhile(lambda names: len(set(names)) == 1, levels)]
    roots = ["/".join(common[: n + 1]) + "/" for n in range(len(common))]
    hits = {
        root: sum(os.path.lexists(folder / path.removeprefix(root)) for path in sample)
        for root in roots
    }
    best = max(roots, key=hits.__getitem__, default="")
    return best if best and hits[best] else ""


def _find_file(text: str, root: str, folder: Path, inside: Path, outside: bool) -> Entry:
    for spelling in spell(text):
        path = spelling.removeprefix(root)
        try:
            os.lstat(folder / path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError) as error:  # ValueError: a zero byte
            return refuse(text, explain(error))
        key = _locate(path, folder, inside)
        if not leads_out(key) or outside:
            return make_entry(key, folder / path, None if outside else inside)
        return refuse(key, OUTSIDE)
    return Entry(normalise_path(text).removeprefix(root), "", None)


def normalise_path(path: str) -> str:
    r"""Return a path as it names an image: with slashes, without `.`, and with composed accents.

    >>> normalise_path(r" .\a\\b/../1.jpg")
    'a/1.jpg'
    """
    return unicodedata.normalize("NFC", os.path.normpath(path.strip().replace("\\", "/")))


def _locate(path: str, folder: Path, inside: Path) -> str:
    """Return the key of a file: relative to the folder, or its whole path outside of it."""
    if not leads_out(path):
        return normalise_path(path)
    file = Path(os.path.normpath(folder / path))
    file = file.parent.resolve() / file.name
    return normalise_path(str(file.relative_to(inside) if file.is_relative_to(inside) else file))
