"""``irgen compact``: rewrite the index without removed and replaced images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from irgen.commands import project_index
from irgen.commands.format import format_bytes, format_count
from irgen.commands.options import change_index_option, root_option
from irgen.releases import own_index

if TYPE_CHECKING:
    from irgen.index.index import Index


@click.command()
@change_index_option
@root_option
def compact(folder: Path | None, root: Path) -> None:
    """Rewrite the index without removed and replaced images.

    Afterwards it equals a new index of the same images: it is smaller, and added images are found
    as fast as others. Searches go on meanwhile. An index with many changes is compacted without
    being asked.
    """
    with project_index.open_to_change(root, folder, has_changed) as (index, changed):
        path = own_index.folder_of(index)
        if not changed:
            print(f"{path} is compact: nothing was added or removed since it was written.")
            return
        before = bytes_of_images(index)
        index.compact()
        if own_index.is_own(index, root):
            own_index.prune(root, index.view)
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
