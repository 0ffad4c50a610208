"""``irgen remove``: remove images from the index."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from irgen.commands import project_index
from irgen.commands.format import format_count
from irgen.commands.options import (
    EXPRESSION,
    change_index_option,
    change_server_option,
    root_option,
)
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
@change_server_option
@root_option
def remove(
    ids: tuple[str, ...],
    ids_from: str | None,
    allow: str | None,
    yes: bool,
    folder: Path | None,
    server: str | None,
    root: Path,
) -> None:
    """Remove images from the index by ID, by a file of ids, or by an expression. If an id is
    unknown, nothing is removed."""
    named = bool(ids or ids_from)
    if named == (allow is not None):
        raise IndexingError("name ids, or a file of them with --ids-from, or else use --allow")
    if server and folder:
        raise click.UsageError("--server excludes --index")
    all_ids = list(dict.fromkeys([*ids, *(read_ids(ids_from) if ids_from else [])]))
    if server:
        print(remove_by_service(server, all_ids, allow, confirmed=yes))
        return

    def select(index: Index) -> list[str]:
        if allow is None:
            return check_known(index, all_ids)
        return select_matching(index, allow, confirmed=yes)

    with project_index.open_to_change(root, folder, select) as (index, selected):
        if selected:
            index.remove(selected)
        path = own_index.folder_of(index)
        print(f"{format_count(len(selected), 'image')} removed. {path} holds {len(index):,} now.")


def remove_by_service(url: str, ids: list[str], allow: str | None, *, confirmed: bool) -> str:
    """Remove images through the service at ``url``, request by request; return a summary. Raise
    IndexingError if images match ``allow`` and ``confirmed`` is false."""
    from irgen.client import Client
    from irgen.commands import service_changes

    with Client(url) as client:
        images = client.info()["index"]["images"]
        if allow is not None:
            ids = service_changes.list_matching(client, allow)
            refuse_unconfirmed(allow, ids, images, confirmed=confirmed)
        for change in service_changes.remove_images(client, ids):
            images = change.images
        text = f"{format_count(len(ids), 'image')} removed."
        return f"{text} The index of {client.url} holds {images:,} now."


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

    view = index.view
    rows = filters.allowed_rows(expression, view).numpy().nonzero()[0]
    ids = sorted(view.ids(rows))
    refuse_unconfirmed(expression, ids, len(index), confirmed=confirmed)
    return ids


def refuse_unconfirmed(expression: str, ids: list[str], images: int, *, confirmed: bool) -> None:
    """Raise IndexingError if an expression selects ids, of an index of ``images``, and nobody has
    ``confirmed`` that they are to be removed."""
    from irgen.index.rows import shorten

    if ids and not confirmed:
        raise IndexingError(
            f"{expression!r} selects {len(ids):,} of {images:,} images: {shorten(ids)}; "
            "nothing was removed: repeat with --yes to remove them"
        )


def read_ids(file: str) -> list[str]:
    """Return the lines of a file that are not empty. Raise IndexingError if it cannot be read."""
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise IndexingError(f"{file} cannot be read as a list of ids: {reason}") from None
    # Not splitlines, which also parts at characters that names may hold.
    return [line for line in text.replace("\r\n", "\n").split("\n") if line.strip()]
