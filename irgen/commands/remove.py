"""``irgen remove``: images out of the index."""

import sys
from argparse import Namespace
from pathlib import Path

from irgen.commands import places
from irgen.commands.wording import counted
from irgen.errors import IndexingError
from irgen.index import filters
from irgen.index.index import Index
from irgen.index.rows import shorten


def run(options: Namespace) -> None:
    """Removes images and says how many. Raises IndexingError, having removed nothing, for an
    unknown id, an expression that is none, and one that is not confirmed."""
    named = bool(options.ids or options.ids_from)
    if named == (options.allow is not None):
        raise IndexingError("name ids, or a file of them with --ids-from, or else use --allow")
    ids = _ids(options) if named else []
    with places.to_change(options, lambda index: _checked(index, ids, options)) as changing:
        index, names = changing
        if names:
            index.remove(names)
        folder = places.folder_of(index)
        print(f"{counted(len(names), 'image')} removed. {folder} holds {len(index):,} now.")


def _checked(index: Index, ids: list[str], options: Namespace) -> list[str]:
    """The ids of the images to remove."""
    if options.allow is None:
        rows = index.view.find(ids)
        if unknown := [name for name, row in zip(ids, rows, strict=True) if row < 0]:
            raise IndexingError(f"not in the index: {shorten(unknown)}; nothing was removed")
        return ids
    view = index.view
    chosen = filters.allowed_rows(filters.parse(options.allow), view).numpy().nonzero()[0]
    names = sorted(view.ids(chosen))
    if names and not options.yes:
        raise IndexingError(
            f"{options.allow!r} selects {len(names):,} of {len(index):,} images: {shorten(names)}; "
            "nothing was removed: repeat with --yes to remove them"
        )
    return names


def _ids(options: Namespace) -> list[str]:
    """The ids given and listed, each once."""
    found = [*options.ids]
    if options.ids_from:
        found += [line for line in _read(options.ids_from).splitlines() if line.strip()]
    return list(dict.fromkeys(found))


def _read(file: str) -> str:
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise IndexingError(f"{file} cannot be read as a list of ids: {reason}") from None
