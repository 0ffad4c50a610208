"""``irgen compact``: the index written afresh."""

from argparse import Namespace

from irgen.commands import places
from irgen.commands.wording import counted, size
from irgen.index.index import Index


def run(options: Namespace) -> None:
    """Compacts the index and says what that changed. Raises IndexingError if there is no index, it
    is damaged or has a writer, or the disk is full."""
    with places.to_change(options, has_changed) as (index, changed):
        folder = places.folder_of(index)
        if not changed:
            print(f"{folder} is compact: nothing was added or removed since it was written.")
            return
        before = taken(index)
        index.compact()
        print(
            f"{folder} was compacted: {counted(len(index), 'image')} in {size(taken(index))}, "
            f"{size(before)} before."
        )


def has_changed(index: Index) -> bool:
    """Whether anything was added or removed since the index was last compacted."""
    return not index.view.is_compact


def taken(index: Index) -> int:
    """Bytes on the disk, models apart."""
    about = index.info()["bytes"]
    return about["base"] + about["changes"]
