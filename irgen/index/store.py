"""Files of an open index, and the changes that its one writer makes."""

import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from threading import Lock, RLock
from typing import Any, Self, TypeVar

import numpy as np
import polars as pl

from irgen.compute.machine import run_on_one_core
from irgen.errors import IdTakenError, IdUnknownError, IndexingError, IrgenWarning, ReplacedWarning
from irgen.files.atomic import sync, sync_tree
from irgen.index import copying, damage, folder, notebook
from irgen.index.database import Database, State
from irgen.index.folder import Folder
from irgen.index.rows import Rows, check_ids, collision, hash_ids, shorten
from irgen.index.view import View

MANY_CHANGES, MANY_SHARE = 5_000, 0.01  # changes, or their share of the base, that are compacted
MANY_DEAD = 1_000  # rows of a view that are not worth keeping
T = TypeVar("T")


class Store:
    """Files of an open index. Threads may share it.

    Nothing is kept in memory of what the writer does: it commits to the SQLite file, and the next
    ``refresh`` reads that, in this process as in any other. After many changes the writer compacts
    the index, so that it stays quick to open and to change: the change that is one too many is
    committed first, but returns only after the compaction.
    """

    def __init__(self, path: Path, *, writable: bool, wait: float):
        if path.is_symlink():
            path = path.resolve()  # a link that is moved leads to another index
        if writable:
            _repeat_if_replaced(path, folder.read)  # before a lock file is written there
        self._changing, self._refreshing, self._compacting = RLock(), Lock(), Lock()
        self._closed, self._replaced = False, False
        self._tolerated = 0  # changes that could not be compacted
        with ExitStack() as opened:
            self._writer = _open_writer(path, wait, opened) if writable else None
            self.folder, self._file, self._view = _repeat_if_replaced(path, _read_whole)
            opened.callback(self._file.close)
            if writable:
                self.folder.prune(self._view.base.number)
            self._opened = opened.pop_all()

    def close(self) -> None:
        """Let the next writer in. Closing twice does no harm."""
        with self._compacting, self._changing, self._refreshing:
            self._closed, self._writer = True, None
            self._file.close()  # another one than at first, if the index was replaced meanwhile
            self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        """Images in the index."""
        return len(self.view)

    @property
    def schema(self) -> pl.Schema:
        """Return the metadata columns and their types, which never change."""
        return self._view.schema

    @property
    def view(self) -> View:
        """Return the images in the index now: a snapshot to search, and the ids and metadata of its
        rows. It never changes: take it once for whatever must agree. A reader's view is as of its
        last search or ``refresh``."""
        if self._writer is not None:
            self.refresh()
        return self._view

    @property
    def revision(self) -> int:
        """Return the number of the latest change. Each image added, replaced or removed counts."""
        return self._file.state().revision

    def refresh(self) -> None:
        """Take in what the writer, in this or another process, has committed since this index last
        looked. If the index was closed or deleted, or an index of other models has replaced it, all
        that was read stays; of a replacement this warns once."""
        with self._refreshing:
            if self._closed or self._replaced or not self.folder.path.exists():
                return
            if self.is_gone:
                self._view = self._reopen()
                return
            state, view = self._file.state(), self._view
            if (state.base, state.revision) != (view.base.number, view.revision):
                self._view = self._catch_up(view)

    @property
    def is_gone(self) -> bool:
        """Tell whether the index was deleted or replaced since it was opened."""
        try:
            return self._file.path.stat().st_ino != self._file.inode
        except FileNotFoundError:
            return True

    def _reopen(self) -> View:
        """Return the view of the index that has replaced this one."""
        if _repeat_if_replaced(self.folder.path, folder.read).digest != self.folder.digest:
            self._replaced = True
            text = (
                f"{self.folder.path} has been replaced by an index of other models or another "
                "configuration: searches go on in the one that was opened; open it again"
            )
            warnings.warn(text, ReplacedWarning, stacklevel=4)
            return self._view
        replaced = self._file
        self._file, view = _repeat_if_replaced(self.folder.path, lambda _: _load(self.folder))
        replaced.close()
        return view

    def _catch_up(self, view: View) -> View:
        """Return the latest view, given an earlier one."""
        if view.dead_added > max(MANY_DEAD, len(view.added) // 2):  # replaced again and again
            view = View.of(view.base, self.folder.codebooks)
        state, changes = self._file.read(view.revision)
        if state.base != view.base.number:
            return self.folder.load(self._file)
        return view.apply(changes, state.revision)

    def put(self, images: Rows, *, replace: bool) -> None:
        """Add images; with ``replace``, instead of those with the same id. All of them, or none and
        an IndexingError if an id exists (without ``replace``) or has the key of another id."""
        ids = images.table["id"].to_list()
        with self._writing() as writer:
            present = self._find(writer, images.keys)
            for name, old in zip(ids, present, strict=True):
                if old not in (None, name):
                    raise collision(str(old), name)
            if not replace:
                _refuse([name for name in present if name is not None])
            if len(images):
                writer.put(images)
        self._compact_many_changes()

    def remove(self, ids: Sequence[str]) -> None:
        """Remove images; all of them, or none and an IndexingError if one is not in the index."""
        names = check_ids(ids)
        keys = hash_ids(names)
        with self._writing() as writer:
            present = self._find(writer, keys)
            missing = [name for name, old in zip(names, present, strict=True) if old != name]
            if missing:
                raise IdUnknownError(f"not in the index: {shorten(missing)}; nothing was removed")
            if names:
                writer.remove(names, keys)
        self._compact_many_changes()

    def takes_rows_of(self, other: "Store") -> bool:
        """Tell whether both have the same models and metadata columns, so that embeddings and
        metadata made for ``other`` can be added here."""
        return self.folder.models == other.folder.models and self.schema == other.schema

    def refuse_present(self, ids: Sequence[str]) -> None:
        """Raise IdTakenError if an id is in the index."""
        present = self.view.find(ids) >= 0
        _refuse([name for name, is_present in zip(ids, present, strict=True) if is_present])

    def _find(self, writer: Database, keys: np.ndarray) -> list[str | None]:
        """Return the id in the index that has each key, None where there is none."""
        rows = self._view.base.find(keys)
        names = iter(self._view.base.table["id"][rows[rows >= 0]].to_list())
        in_base = [next(names) if row >= 0 else None for row in rows.tolist()]
        changed = writer.find(keys.tolist())
        return [changed.get(key, name) for key, name in zip(keys.tolist(), in_base, strict=True)]

    def compact(self) -> None:
        """Write all images as a fresh base, which then equals, byte for byte, that of a new index
        of the same images. Searches go on, and so may other threads' changes.

        Raise IndexingError, having changed nothing, if the disk is full or the embeddings that are
        read are damaged.
        """
        with self._compacting:
            with self._writing():
                view = self.view
            number = view.base.number + 1
            with damage.writing(f"compacting {self.folder.path}"):
                run_on_one_core(_write_base, view, self.folder.base(number))
            new = run_on_one_core(self.folder.read_base, number)
            fresh = run_on_one_core(View.of, new, self.folder.codebooks)
            state = State(number, self.folder.owner(new.digest), view.revision)
            with self._writing() as writer, self._refreshing:
                writer.switch(state)
                state, changes = self._file.read(view.revision)
                self._view = run_on_one_core(fresh.apply, changes, state.revision)
            self.folder.prune(number)

    def _compact_many_changes(self) -> None:
        """Compact the index if much of it has changed. Only warn if that fails, since the changes
        themselves are made; try again after as many more."""
        with self._writing() as writer:
            changes, images = writer.count_changes(), len(self._view.base.keys)
        few = max(MANY_CHANGES, int(MANY_SHARE * images))
        if changes - self._tolerated <= few or self._compacting.locked():
            return
        try:
            self.compact()
            self._tolerated = 0
        except (IndexingError, MemoryError) as error:
            self._tolerated = changes
            text = f"the change was made, but the index was not compacted: {error!s}"
            warnings.warn(text, IrgenWarning, stacklevel=3)

    def save(self, path: Path | str) -> None:
        """Create at ``path`` a compacted copy that shares no file with this index. Raise
        IndexingError if something is there already, the disk is full, or what is read is
        damaged."""
        self.refresh()
        view = self._view
        config = self.folder.config
        copying.write(self.folder, Path(path), config, lambda new: copying.write_base(view, new))

    def info(self) -> dict[str, Any]:
        """Describe the index in plain values: its images, of them ``trained`` on and ``added``
        since the last compaction; ``dead_rows`` of images that were removed or replaced; shape of
        codes and embeddings; metadata columns; bytes on the disk; configuration."""
        view, (levels, size, width) = self.view, self.folder.codebooks.shape
        snapshot = view.snapshot
        return {
            "folder": str(self.folder.path),
            "base": view.base.number,
            "writable": self._writer is not None,
            "images": len(view),
            "trained": len(view) - sum(map(len, snapshot.fresh_tries)),
            "added": sum(map(len, snapshot.live_tries[1:])),
            "dead_rows": snapshot.rows - len(view),
            "levels": levels,
            "codebook": size,
            "width": width,
            "columns": {name: str(kind) for name, kind in view.schema.items()},
            "bytes": {
                "base": sum(file["size"] for file in view.base.files.values()),
                "changes": self._file.size(),
                "models": sum(file["size"] for file in self.folder.models.values()),
            },
            "config": self.folder.config,
        }

    def _repr_html_(self) -> str:
        """Show the index in a notebook, with some of its pictures."""
        self.refresh()
        return notebook.show_index(self._view, self.folder.path)

    def verify(self) -> None:
        """Read every file. Raise IndexingError for the first that is missing or damaged."""
        folder.read(self.folder.path)
        self.folder.check_models()
        with closing(Database(self.folder.path)) as file:
            file.verify()
            self.folder.load(file, verify=True)

    @contextmanager
    def _writing(self) -> Iterator[Database]:
        """Make one change at a time, to the base of ``_view``."""
        with self._changing:
            path, writer = self.folder.path, self._writer
            if self._closed:
                raise IndexingError(f"{path} was closed: open it again")
            if writer is None:
                raise IndexingError(f"{path} was opened for reading: open it with writable=True")
            if self.is_gone:  # SQLite would go on writing to the deleted file
                raise IndexingError(f"{path} was deleted or replaced meanwhile: open it again")
            if writer.state().base != self._view.base.number:  # a compaction was interrupted
                self.refresh()
            yield writer


def _repeat_if_replaced(path: Path, read: Callable[[Path], T]) -> T:
    """Return ``read(path)``; read again if it failed because one index replaced another there: of
    files of both, anything may come."""
    while True:
        before = folder.identify(path)
        try:
            return read(path)
        except Exception:
            if folder.identify(path) == before:
                raise


def _read_whole(path: Path) -> tuple[Folder, Database, View]:
    """Return folder, SQLite file and view of the index at ``path``."""
    own = folder.read(path)
    return own, *_load(own)


def _load(own: Folder) -> tuple[Database, View]:
    """Return SQLite file and view of an index. Raise IndexingError if another one takes its place
    meanwhile, since the view may then be of files of both."""
    before = folder.identify(own.path)
    with ExitStack() as stack:
        file = Database(own.path)
        stack.callback(file.close)
        view = own.load(file)
        if folder.identify(own.path) != before:
            raise IndexingError(f"{own.path} was replaced while it was opened: open it again")
        stack.pop_all()
    return file, view


def _open_writer(path: Path, wait: float, stack: ExitStack) -> Database:
    """Open the SQLite file for the one writer, until the ``stack`` is closed."""
    with damage.writing(f"opening {path}"):
        stack.callback(folder.lock(path, wait).release)
    writer = Database(path, writable=True)
    stack.callback(writer.close)
    return writer


def _refuse(present: Sequence[str]) -> None:
    if present:
        raise IdTakenError(f"in the index already: {shorten(present)}; use upsert to replace")


def _write_base(view: View, target: Path) -> None:
    """Write the images of ``view`` as a base at ``target``, whole or not at all."""
    temporary = target.with_name(f".{target.name}.tmp")
    for left in (temporary, target):  # of a compaction that failed
        shutil.rmtree(left, ignore_errors=True)
    try:
        copying.write_base(view, temporary)
        sync_tree(temporary)
        temporary.rename(target)
        sync(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
