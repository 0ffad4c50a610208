"""Which index a command is about: the project's own, the one that is served, or the pipeline's.

``data/index`` belongs to DVC, which makes it anew whenever the pipeline runs; whatever was changed
in it would be lost. A release never changes. So changes are made to ``index``, which begins as a
copy of the release that is served, or of ``data/index`` as long as nothing was released.
"""

import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from irgen.errors import IndexingError
from irgen.index import copying
from irgen.index.index import Index
from irgen.releases import store
from irgen.releases.release import ABOUT
from irgen.releases.store import champion
from irgen.workspace import Workspace

OWN = "index"  # in the project's root, not known to DVC
T = TypeVar("T")


def opened(folder: Path, *, writable: bool = False) -> Index:
    """The index at ``folder``, on a GPU if there is one. Raises IndexingError as ``Index.open``."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Index.open(folder, writable=writable, device=device)


@contextmanager
def to_read(options: Namespace) -> Iterator[Index]:
    """The index to search or to tell about; says so if the pipeline has made another one since.
    Raises IndexingError if there is none."""
    own, made = options.root / OWN, source(options.root)
    folder = options.index or (own if _is_there(own) else made)
    with opened(folder) as index:
        _tell_if_outdated(index, options)
        yield index


@contextmanager
def to_change(options: Namespace, check: Callable[[Index], T]) -> Iterator[tuple[Index, T]]:
    """The index to change, writable, and what ``check`` made of it.

    If the project has none of its own yet, ``check`` is given the one to be copied, so that no copy
    is made for a mistake; nor for nothing: if what ``check`` gives is false, that index is given as
    it is, to be read. Raises IndexingError if there is nothing to copy, if the index has a writer,
    or if it is the pipeline's own or a release.
    """
    folder, made = options.index or options.root / OWN, source(options.root)
    if is_release(folder):
        raise IndexingError(
            f"{folder} is a release, which never changes: leave --index out to change "
            f"{options.root / OWN}, which begins as a copy of the one that is served"
        )
    if is_pipelines(folder, options.root):
        raise IndexingError(
            f"{folder} is made by the pipeline, which makes it anew whenever it runs, and changes "
            f"to it would be lost: leave --index out to change {options.root / OWN}, which begins "
            "as its copy"
        )
    if options.index is None and not _is_there(folder):
        with opened(made) as index:
            checked = check(index)
            if not checked:
                yield index, checked
                return
        _make(folder, made, options)
        with opened(folder, writable=True) as index:
            yield index, checked
        return
    with opened(folder, writable=True) as index:
        _tell_if_outdated(index, options)
        yield index, check(index)


def _make(folder: Path, made: Path, options: Namespace) -> None:
    try:
        copying.copy(made, folder)
    except IndexingError:
        if not _is_there(folder):  # else another command has just made it
            raise
    note(options, f"{folder} was made, a copy of {made} for changes; searches use it from now on")


def source(root: Path) -> Path:
    """The folder of the index that the project's own begins as a copy of, and that is read as long
    as there is none: the release that is served, else the pipeline's."""
    served = champion(store.folder(root))
    return pipeline(root) if served is None else store.folder(root) / served.name


def is_release(folder: Path) -> bool:
    """Whether ``folder`` is, by whatever path, a release."""
    return (folder.resolve() / ABOUT).exists()


def pipeline(root: Path) -> Path:
    """The folder of the index that the pipeline makes."""
    return Workspace.at(root).stage("index")


def is_pipelines(folder: Path, root: Path) -> bool:
    """Whether ``folder`` is, by whatever path, the index that this or another project's pipeline
    makes."""
    found = folder.resolve()
    if found == pipeline(root).resolve():
        return True
    return found.parts[-2:] == ("data", "index") and (found.parents[1] / "dvc.yaml").exists()


def is_outdated(index: Index, root: Path) -> bool:
    """Whether another index is served, or was made by the pipeline, since this one was made from
    it."""
    return copying.has_moved_on(source(root), index.info()["config"])


def _tell_if_outdated(index: Index, options: Namespace) -> None:
    if options.name != "info" and is_outdated(index, options.root):
        made, own = source(options.root), folder_of(index)
        what = f"was made anew since {own} was made from it"
        if is_release(made):
            what = f"is served now, which {own} was not made from"
        note(options, f"{made} {what}: see irgen info")


def folder_of(index: Index) -> Path:
    """Where an index is."""
    return Path(index.info()["folder"])


def note(options: Namespace, text: str) -> None:
    """Tells the user something that is not the answer."""
    print(f"irgen {options.name}: {text}", file=sys.stderr)


def _is_there(folder: Path) -> bool:
    """Whether anything is at ``folder`` but an empty folder."""
    return folder.exists() and not (folder.is_dir() and not any(folder.iterdir()))
