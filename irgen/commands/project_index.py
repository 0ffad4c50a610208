"""Choose and open the index for a command: the project's own, the served one, or the pipeline's.

``data/index`` belongs to DVC, which makes it again whenever the pipeline runs, and a release never
changes. So commands change ``index``, which starts as a copy of the served release, or of
``data/index`` before the first release.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from irgen.commands.options import note
from irgen.errors import IndexingError
from irgen.files.workspace import Workspace
from irgen.releases import store
from irgen.releases.release import RECORD

if TYPE_CHECKING:
    from irgen.index.index import Index

WORKING = "index"  # the index that commands change, in the project's folder; DVC ignores it
T = TypeVar("T")


def open_index(folder: Path, *, writable: bool = False) -> Index:
    """Open the index at ``folder``, on a GPU if there is one. Raise IndexingError as ``Index.open``
    does."""
    import torch

    from irgen.index.index import Index

    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Index.open(folder, writable=writable, device=device)


@contextmanager
def open_to_read(root: Path, folder: Path | None, *, warn: bool = True) -> Iterator[Index]:
    """Open the index at ``folder``, by default the project's own or else its source. With ``warn``,
    print if a newer one is served or was made since. Raise IndexingError if there is none."""
    with open_index(folder or default_folder(root)) as index:
        if warn:
            _note_if_outdated(index, root)
        yield index


def default_folder(root: Path) -> Path:
    """Return the folder of the index that commands read: the project's own, or else its source."""
    own = root / WORKING
    return own if _exists(own) else source_folder(root)


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
    target = folder or root / WORKING
    _refuse_fixed(target, root)
    if folder is None and not _exists(target):
        source = source_folder(root)
        with open_index(source) as index:
            checked = check(index)
            if not checked:
                yield index, checked
                return
        _copy(source, target)
        with open_index(target, writable=True) as index:
            yield index, checked
        return
    with open_index(target, writable=True) as index:
        _note_if_outdated(index, root)
        yield index, check(index)


def _refuse_fixed(folder: Path, root: Path) -> None:
    """Raise IndexingError for an index that commands must not change."""
    advice = f"leave --index out to change {root / WORKING}, which starts as a copy of"
    if is_release(folder):
        raise IndexingError(f"{folder} is a release, which never changes: {advice} the served one")
    if is_of_pipeline(folder, root):
        raise IndexingError(
            f"{folder} is made by the pipeline, whose next run would undo changes: {advice} it"
        )


def _copy(source: Path, folder: Path) -> None:
    from irgen.index import copying

    try:
        copying.copy(source, folder)
    except IndexingError:
        if not _exists(folder):  # else another command has just made it
            raise
    note(f"{folder} is a new copy of {source} for changes; searches use it from now on")


def source_folder(root: Path) -> Path:
    """Return the folder of the served release, else of the pipeline's index. The project's own
    index starts as a copy of it; searches use it until then."""
    champion = store.read_champion(store.path_in(root))
    return pipeline_folder(root) if champion is None else store.path_in(root) / champion.name


def is_release(folder: Path) -> bool:
    """Tell whether ``folder``, or the target of a link there, is a release."""
    return (folder.resolve() / RECORD).exists()


def pipeline_folder(root: Path) -> Path:
    """Return the folder of the index that the pipeline makes."""
    return Workspace.at(root).stage("index")


def is_of_pipeline(folder: Path, root: Path) -> bool:
    """Tell whether ``folder``, or the target of a link there, is the index of a project's
    pipeline."""
    path = folder.resolve()
    if path == pipeline_folder(root).resolve():
        return True
    return path.parts[-2:] == ("data", "index") and (path.parents[1] / "dvc.yaml").exists()


def is_outdated(index: Index, root: Path) -> bool:
    """Tell whether another index was released, or made by the pipeline, since this one was
    copied."""
    from irgen.index import copying

    return copying.has_moved_on(source_folder(root), index.info()["config"])


def _note_if_outdated(index: Index, root: Path) -> None:
    if is_outdated(index, root):
        source, copy = source_folder(root), folder_of(index)
        state = f"was made again since {copy} was copied from it"
        if is_release(source):
            state = f"is served now, and {copy} is a copy of another index"
        note(f"{source} {state}: see irgen info")


def folder_of(index: Index) -> Path:
    """Return the folder of an index."""
    return Path(index.info()["folder"])


def _exists(folder: Path) -> bool:
    """Tell whether there is anything at ``folder`` but an empty folder."""
    return folder.exists() and not (folder.is_dir() and not any(folder.iterdir()))
