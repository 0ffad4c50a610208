"""``irgen remove``: remove images from the index."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from irgen.commands import project_index
from irgen.commands.format import format_count
from irgen.commands.options import EXPRESSION, change_index_option, root_option
from irgen.errors import IndexingError
from irgen.releases import own_index

if TYPE_CHECKING:
    from irgen.index.index import Index


@click.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--ids-from", metavar="FILE", help="A file with one id per line; - is stdin.")
@click.option(
    "--allow",
    metavar="EXPR",
    help=f"Remove all images that match: {EXPRESSION}. Without --yes, only count them.",
)
@click.option("--yes", is_flag=True, help="Do remove the images that --allow selects.")
@change_index_option
@root_option
def remove(
    ids: tuple[str, ...],
    ids_from: str | None,
    allow: str | None,
    yes: bool,
    folder: Path | None,
    root: Path,
) -> None:
    """Remove images from the index by ID, by a file of ids, or by an expression. If an id is
    unknown, nothing is removed."""
    named = bool(ids or ids_from)
    if named == (allow is not None):
        raise IndexingError("name ids, or a file of them with --ids-from, or else use --allow")
    all_ids = list(dict.fromkeys([*ids, *(read_ids(ids_from) if ids_from else [])]))

    def select(index: Index) -> list[str]:
        if allow is None:
            return check_known(index, all_ids)
        return select_matching(index, allow, confirmed=yes)

    with project_index.open_to_change(root, folder, select) as (index, selected):
        if selected:
            index.remove(selected)
        path = own_index.folder_of(index)
        print(f"{format_count(len(selected), 'image')} removed. {path} holds {len(index):,} now.")


def check_known(index: Index, ids: list[str]) -> list[str]:
    """Return ``ids``. Raise IndexingError if one is not in the index."""
    from irgen.index.rows import shorten

    rows = index.view.find(ids)
    if unknown := [name for name, row in zip(ids, rows, strict=True) if row < 0]:
        raise IndexingError(f"not in the index: {shorten(unknown)}; nothing was removed")
    return ids


def select_matching(index: Index, expression: str, *, confirmed: bool) -> list[str]:
    """Return the ids of the images that match. Raise IndexingError for an invalid expression, or if
    images match and ``confirmed`` is false."""
    from irgen.index import filters
    from irgen.index.rows import shorten

    view = index.view
    rows = filters.allowed_rows(expression, view).numpy().nonzero()[0]
    ids = sorted(view.ids(rows))
    if ids and not confirmed:
        raise IndexingError(
            f"{expression!r} selects {len(ids):,} of {len(index):,} images: {shorten(ids)}; "
            "nothing was removed: repeat with --yes to remove them"
        )
    return ids


def read_ids(file: str) -> list[str]:
    """Return the lines of a file that are not empty. Raise IndexingError if it cannot be read."""
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise IndexingError(f"{file} cannot be read as a list of ids: {reason}") from None
    # Not splitlines, which also parts at characters that names may hold.
    return [line for line in text.replace("\r\n", "\n").split("\n") if line.strip()]
