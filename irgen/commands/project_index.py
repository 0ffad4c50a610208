"""Open the index for a command, to read or to change it, and print what the user should know."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from irgen.commands.options import note
from irgen.errors import IndexingError
from irgen.releases import own_index

if TYPE_CHECKING:
    from irgen.index.index import Index

T = TypeVar("T")


def choose_device() -> str:
    """Return the GPU if there is one, else the CPU."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def open_index(folder: Path, *, writable: bool = False) -> Index:
    """Open the index at ``folder``, on a GPU if there is one. Raise IndexingError as ``Index.open``
    does."""
    from irgen.index.index import Index

    return Index.open(folder, writable=writable, device=choose_device())


@contextmanager
def open_to_read(root: Path, folder: Path | None, *, warn: bool = True) -> Iterator[Index]:
    """Open the index at ``folder``, by default the project's own or else its source. With ``warn``,
    print if a newer one is served or was made since. Raise IndexingError if there is none."""
    with open_index(folder or own_index.default_folder(root)) as index:
        if warn:
            _note_if_outdated(index, root)
        yield index


@contextmanager
def open_to_change(
    root: Path, folder: Path | None, check: Callable[[Index], T]
) -> Iterator[tuple[Index, T]]:
    """Open the index at ``folder``, by default the project's own, for changes; yield it and the
    result of ``check``.

    If the project has no index of its own yet, ``check`` gets the one to copy. It is copied only if
    ``check`` returns something true; else it is yielded as it is, read-only. Raise IndexingError if
    there is nothing to copy, if the index has a writer, or if it is a release or the pipeline's.
    """
    target = folder or own_index.path_in(root)
    _refuse_fixed(target, root)
    if folder is None and not own_index.exists(root):
        source = own_index.source_folder(root)
        with open_index(source) as index:
            checked = check(index)
            if not checked:
                yield index, checked
                return
        if own_index.make_copy(root):
            note(f"{target} is a new copy of {source} for changes; searches use it from now on")
        with open_index(target, writable=True) as index:
            yield index, checked
        return
    with open_index(target, writable=True) as index:
        _note_if_outdated(index, root)
        yield index, check(index)


def _refuse_fixed(folder: Path, root: Path) -> None:
    """Raise IndexingError for an index that commands must not change."""
    own = own_index.path_in(root)
    advice = f"leave --index out to change {own}, which starts as a copy of"
    if own_index.is_release(folder):
        raise IndexingError(f"{folder} is a release, which never changes: {advice} the served one")
    if own_index.is_of_pipeline(folder, root):
        raise IndexingError(
            f"{folder} is made by the pipeline, whose next run would undo changes: {advice} it"
        )


def _note_if_outdated(index: Index, root: Path) -> None:
    if own_index.is_outdated(index, root):
        source, copy = own_index.source_folder(root), own_index.folder_of(index)
        state = f"was made again since {copy} was copied from it"
        if own_index.is_release(source):
            state = f"is served now, and {copy} is a copy of another index"
        note(f"{source} {state}: see irgen info")
