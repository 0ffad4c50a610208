"""Open the index for a command, to read or to change it, and print what the user should know."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from irgen.commands.format import format_count
from irgen.commands.options import note
from irgen.errors import IndexingError, IrgenError
from irgen.releases import own_index

if TYPE_CHECKING:
    from irgen.index.index import Index
    from irgen.releases.merged_index import Refreshed

WAIT_SECONDS = 10.0  # for another writer, such as a service, which soon ends its turn
T = TypeVar("T")


def choose_device() -> str:
    """Return the GPU if there is one, else the CPU."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def open_index(folder: Path, *, writable: bool = False) -> Index:
    """Open the index at ``folder``, on a GPU if there is one. Raise IndexingError as ``Index.open``
    does."""
    from irgen.index.index import Index

    return Index.open(folder, writable=writable, wait=WAIT_SECONDS, device=choose_device())


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

    If the project's own index is outdated, it is refreshed first. If there is none yet, ``check``
    gets the one to copy. It is copied only if ``check`` returns something true; else it is yielded
    as it is, read-only. Raise IndexingError if there is nothing to copy, if the index has a writer,
    or if it is a release or the pipeline's.
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
    if folder is None:
        _refresh(root)
    with open_index(target, writable=True) as index:
        yield index, check(index)


def _refresh(root: Path) -> None:
    """Refresh the project's own index if it is outdated, and print what was done. If it cannot be
    refreshed, print why: the command goes on with the index as it is, and no edit is lost."""
    if not own_index.needs_refresh(root):
        return
    try:
        refreshed = own_index.refresh(root, choose_device())
    except IrgenError as error:
        note(f"{own_index.path_in(root)} is still a copy of another index: {error}")
    else:
        if refreshed is not None:
            note(describe_refresh(root, refreshed))


def describe_refresh(root: Path, refreshed: Refreshed) -> str:
    """Describe a refresh of the project's own index."""
    from irgen.index.rows import shorten

    missing, dropped = refreshed.missing, refreshed.dropped
    return (
        f"{own_index.path_in(root)} is a copy of {refreshed.source} now, with what was changed by "
        f"hand: {format_count(refreshed.put, 'image')} added or replaced, {refreshed.removed:,} "
        f"removed; it holds {len(refreshed.view):,}"
        + (f"; left out because their files are missing: {shorten(missing)}" if missing else "")
        + (f"; metadata columns that it does not have: {shorten(dropped)}" if dropped else "")
    )


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
        note(describe_outdated(index, root))


def describe_outdated(index: Index, root: Path) -> str:
    """Describe that a copy is outdated, and how to bring the project's own up to date."""
    source, copy = own_index.source_folder(root), own_index.folder_of(index)
    state = f"{copy} is a copy of what {source} was before"
    if own_index.is_release(source):
        state = f"{copy} is a copy of another index than {source}, which is served now"
    remedy = f": irgen refresh brings {copy} up to date and keeps what was changed by hand"
    return state + (remedy if own_index.is_own(index, root) else "")


def note_if_served_is_not_searched(root: Path) -> None:
    """Print that searches use the project's own index, if that is not up to date with the served
    release."""
    if own_index.needs_refresh(root):
        note(
            f"searches use {own_index.path_in(root)}, which is a copy of another index: irgen "
            "refresh brings it up to date and keeps what was changed by hand; a running irgen "
            "serve does so itself"
        )
