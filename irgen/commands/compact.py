"""``irgen compact``: rewrite the index without removed and replaced images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from irgen.commands import project_index
from irgen.commands.format import format_bytes, format_count
from irgen.commands.options import change_index_option, note, root_option

if TYPE_CHECKING:
    from irgen.index.index import Index

MANY_CHANGES = 50_000  # an index with 200,000 takes more than four seconds to open
DEAD_SHARE, FEWEST_DEAD = 0.2, 1_000  # of the rows; fewer of them cost nothing


@click.command()
@change_index_option
@root_option
def compact(folder: Path | None, root: Path) -> None:
    """Rewrite the index without removed and replaced images.

    Afterwards it equals a new index of the same images: it is smaller, and added images are found
    as fast as others. Searches go on meanwhile.
    """
    with project_index.open_to_change(root, folder, has_changed) as (index, changed):
        path = project_index.folder_of(index)
        if not changed:
            print(f"{path} is compact: nothing was added or removed since it was written.")
            return
        before = bytes_of_images(index)
        index.compact()
        print(
            f"{path} was compacted: {format_count(len(index), 'image')} in "
            f"{format_bytes(bytes_of_images(index))}, {format_bytes(before)} before."
        )


def has_changed(index: Index) -> bool:
    """Tell whether anything was added or removed since the index was last compacted."""
    return not index.view.is_compact


def bytes_of_images(index: Index) -> int:
    """Return the bytes on disk, without models."""
    sizes = index.info()["bytes"]
    return sizes["base"] + sizes["changes"]


def find_reason(index: Index) -> str:
    """Return why it is worth compacting an index; "" if it is not."""
    facts = index.info()
    dead, changes = facts["dead_rows"], facts["added"] + facts["dead_rows"]
    share = dead / max(facts["images"] + dead, 1)
    if dead >= FEWEST_DEAD and share > DEAD_SHARE:
        return f"{share:.0%} of its rows are of removed or replaced images"
    if changes > MANY_CHANGES:
        return f"{changes:,} rows have changed since it was written, so it opens slowly"
    return ""


def note_if_worthwhile(index: Index) -> None:
    """Print that it is worth compacting an index, if it is."""
    if reason := find_reason(index):
        note(f"{reason}: {format_command(index)} is worthwhile")


def format_command(index: Index) -> str:
    """Return the command that compacts an index."""
    return f"irgen compact --index {project_index.folder_of(index)}"
