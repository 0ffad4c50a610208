"""Make and open the project's own index, ``index/``, which people change: a copy of what is served.

``data/index`` belongs to DVC, which makes it again whenever the pipeline runs, and a release never
changes. So changes go to ``index/``, which starts as a copy of its *source*: the served release, or
``data/index`` before the first release.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from irgen.errors import IndexingError
from irgen.files.workspace import Workspace
from irgen.releases import store
from irgen.releases.release import RECORD

if TYPE_CHECKING:
    from irgen.index.index import Index
    from irgen.index.view import View
    from irgen.releases.edits import Edits
    from irgen.releases.merged_index import Refreshed

NAME = "index"  # in the project's folder; neither Git nor DVC looks at it
LOCK = "index.lock"  # in the project's cache, held while the own index is made
LOCK_SECONDS = 900.0  # to wait for another process that makes it


def path_in(root: Path) -> Path:
    """Return the folder of the project's own index, whether it exists or not."""
    return root / NAME


def exists(root: Path) -> bool:
    """Tell whether the project has an index of its own. An empty folder is none."""
    own = path_in(root)
    if not own.exists() and any(root.glob(f".{NAME}.*.old.tmp")):
        from irgen.index import folder

        folder.restore(own)  # a refresh was killed between its two renames, or is there now
    return own.exists() and not (own.is_dir() and not any(own.iterdir()))


def default_folder(root: Path) -> Path:
    """Return the folder of the index that searches read: the project's own, or else its source."""
    return path_in(root) if exists(root) else source_folder(root)


def source_folder(root: Path) -> Path:
    """Return the folder of the served release, else of the pipeline's index. The project's own
    index starts as a copy of it; searches use it until then."""
    champion = store.read_champion(store.path_in(root))
    return pipeline_folder(root) if champion is None else store.path_in(root) / champion.name


def pipeline_folder(root: Path) -> Path:
    """Return the folder of the index that the pipeline makes."""
    return Workspace.at(root).stage("index")


def folder_of(index: Index) -> Path:
    """Return the folder of an index."""
    return index.folder.path


def is_own(index: Index, root: Path) -> bool:
    """Tell whether an index is the project's own."""
    return folder_of(index).resolve() == path_in(root).resolve()


def is_release(folder: Path) -> bool:
    """Tell whether ``folder``, or the target of a link there, is a release."""
    return (folder.resolve() / RECORD).exists()


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

    return copying.has_moved_on(source_folder(root), index.folder.config)


def needs_refresh(root: Path) -> bool:
    """Tell whether the project has an index of its own that is outdated. It takes milliseconds."""
    if not exists(root):
        return False
    from irgen.index import copying, folder  # takes seconds, for commands that need nothing else

    return copying.has_moved_on(source_folder(root), folder.read(path_in(root)).config)


def refresh(root: Path, device: str = "cpu", *, drop_missing: bool = False) -> Refreshed | None:
    """Bring the project's own index up to date with what is served now: it becomes a copy of that,
    with the same edits. Return what was done; None if there is no own index, or if it is not
    outdated.

    The index can be searched and changed meanwhile. Only one refresh runs at a time; another one
    waits, and then has nothing to do. Whoever calls this must not hold the index's writer. Raise
    IndexingError, having changed nothing, if the file of an added image is needed and missing (with
    ``drop_missing`` the image is left out), or if a writer does not end.
    """
    from irgen.catalog.pictures import Pictures
    from irgen.index.index import Index
    from irgen.releases import merged_index

    if not needs_refresh(root):
        return None
    with lock(root):
        if not needs_refresh(root):  # another process has just done it
            return None
        source, read_file = source_folder(root), Pictures(root).read
        with Index.open(path_in(root), device=device) as ours:
            refreshed = merged_index.replace(ours, source, read_file, drop_missing=drop_missing)
    prune(root, refreshed.view)
    return refreshed


def find_edits(index: Index) -> Edits | None:
    """Return what people changed in an index since it was copied; None for one that does not know
    what it was copied from."""
    from irgen.index import copying
    from irgen.releases import edits

    base, view = copying.read_source(folder_of(index)), index.view
    if base is None:
        return None
    return edits.find_edits(base, view.take(view.snapshot.alive_rows().numpy()))


def prune(root: Path, view: View) -> None:
    """Delete files of images that were added by hand and are not in the own index any more, whose
    ``view`` this is."""
    from irgen.catalog.uploads import prune_uploads

    if "sha256" in view.schema:
        table = view.take(view.snapshot.alive_rows().numpy(), ["sha256"])
        prune_uploads(root, set(table["sha256"].drop_nulls()))


def open_writer(root: Path, device: str = "cpu", *, wait: float = 0.0) -> Index:
    """Open the project's own index for changes. Make it first, a copy of its source, if there is
    none.

    Other writers get up to ``wait`` seconds to end. Raise IndexingError if one does not, or if
    there is nothing to copy.
    """
    from irgen.index.index import Index

    make_copy(root)
    return Index.open(path_in(root), writable=True, device=device, wait=wait)


def make_copy(root: Path) -> bool:
    """Copy the source unless the project has an index of its own; tell whether it was copied. Raise
    IndexingError if there is nothing to copy."""
    from irgen.index import copying

    if exists(root):
        return False
    with lock(root):
        if exists(root):  # another process has just made it
            return False
        copying.copy(source_folder(root), path_in(root))
        return True


@contextmanager
def lock(root: Path) -> Iterator[None]:
    """Let one process or thread at a time make the project's own index. Raise IndexingError if
    another one takes longer than ``LOCK_SECONDS``."""
    from filelock import FileLock, Timeout

    path = Workspace.at(root).cache / LOCK
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path, timeout=LOCK_SECONDS, thread_local=False):
            yield
    except Timeout:
        raise IndexingError(
            f"another process has been making {path_in(root)} for {LOCK_SECONDS:.0f} s: wait for it"
        ) from None
