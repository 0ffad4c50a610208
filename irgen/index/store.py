"""What lasts of an index: the view of its folder, and the one writer's changes to it."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock, RLock
from typing import Any, TextIO

import numpy as np

from irgen.compute import aside
from irgen.errors import IndexingError
from irgen.index import bundle, compaction, creation, disk, items, lock
from irgen.index.bundle import Bundle, Signature
from irgen.index.items import ID, some
from irgen.index.log import Log, beginning, contents, read
from irgen.index.records import Removal, decode, encode
from irgen.index.rows import Rows
from irgen.index.view import View, after


@dataclass
class Writer:
    """What only a writer has: the lock, the log, and the process that opened them."""

    lock: TextIO
    log: Log
    process: int


class Store:
    """A bundle that is open. ``view`` is what is in it, swapped whole at every change, so take it
    once for whatever must agree; ``bundle`` is what never changes. Many threads may share a store.
    """

    def __init__(self, opened: Bundle, view: View, writer: Writer | None):
        self.bundle, self.view, self._writer = opened, view, writer
        self._signature: Signature | None = None
        self._changing, self._compacting = RLock(), Lock()
        self._closed = False

    @classmethod
    def open(cls, folder: Path, *, writable: bool) -> "Store":
        """The bundle at ``folder``; what a killed writer left half done is cleared away.

        Raises IndexingError if there is none, if it is damaged or of a newer version, or if
        ``writable`` and another writer has it.
        """
        if folder.is_symlink():
            folder = folder.resolve()  # a link that is moved leads to another index
        found = bundle.read(folder)
        if not writable:
            return cls(found, bundle.load(found), None)
        with disk.full_disk_told(f"opening {folder}"):
            held = lock.take(folder / bundle.LOCK)
        try:
            view = bundle.load(found)
            bundle.prune(found, view.generation.number)
            log = Log(found.log(view.generation.number), view.position)
        except BaseException:
            held.close()
            raise
        return cls(found, view, Writer(held, log, os.getpid()))

    def close(self) -> None:
        """Lets the next writer in. Closing twice does no harm."""
        with self._compacting, self._changing:
            self._close()

    def _close(self) -> None:
        self._closed = True
        if self._writer is not None:
            self._writer.log.close()
            self._writer.lock.close()
            self._writer = None

    def put(self, images: Rows, *, known: bool) -> None:
        """Takes images in, with ``known`` in place of those whose id they have; all, or none and an
        IndexingError if one is there already (and not ``known``), or has the key of another."""
        ids = images.items[ID].to_list()
        with self._writing():
            there = self.view.with_key(images.keys)
            taken = np.flatnonzero(there >= 0)
            names = self.view.items.ids(there[taken])
            for row, name in zip(taken, names, strict=True):
                if name != ids[row]:
                    raise items.clash(name, ids[row])
            if names and not known:
                raise IndexingError(f"in the index already: {some(names)}; use upsert to replace")
            self._commit(images)

    def remove(self, ids: Sequence[str]) -> None:
        """Gives images up; all, or none and an IndexingError if one is not there."""
        names = items.checked_ids(ids)
        keys = items.keys_of(names)
        with self._writing():
            found = self.view.find(names, keys)
            if unknown := [name for name, row in zip(names, found, strict=True) if row < 0]:
                raise IndexingError(f"not in the index: {some(unknown)}; nothing was removed")
            self._commit(Removal(names, keys))

    def refuse_known(self, ids: Sequence[str]) -> None:
        """Raises IndexingError if an id is there already."""
        if names := [n for n, row in zip(ids, self.view.find(ids), strict=True) if row >= 0]:
            raise IndexingError(f"in the index already: {some(names)}; use upsert to replace")

    def compact(self) -> None:
        """Writes all that is alive as a fresh generation, so that the index is what a new one of
        the same images would be, byte for byte. Searches go on, and so may other threads' changes.

        Raises IndexingError, and changes nothing, if the disk is full or the embeddings it reads
        are damaged.
        """
        with self._compacting:
            with self._writing():
                old = self.view
            new = aside(compaction.next_generation, self.bundle, old)
            view = aside(View.of, new, self.bundle.codebooks, beginning(new.owner))
            with self._writing() as writer:
                log = self.bundle.log
                tail, _ = read(log(old.generation.number), old.generation.owner, old.position)
                content, position = contents(new.owner, tail)
                with disk.full_disk_told(f"compacting {self.bundle.folder}"):
                    disk.put(log(new.number), content)
                view = aside(after, view, [decode(payload) for payload in tail], position)
                self._move_on(writer, view)
            bundle.prune(self.bundle, new.number)

    def _move_on(self, writer: Writer, view: View) -> None:
        """Makes the generation of ``view`` the one that counts, here and on the disk."""
        log = Log(self.bundle.log(view.generation.number), view.position)
        try:
            with disk.full_disk_told(f"compacting {self.bundle.folder}"):
                bundle.point(self.bundle, view.generation.number)
            writer.log, log = log, writer.log
            self.view = view
        except BaseException:
            if bundle.current(self.bundle.folder) == view.generation.number:
                self._close()  # it counts, but whether for good only the disk knows
            raise
        finally:
            log.close()

    def save(self, folder: Path) -> None:
        """Writes a new index of what is in this one now, compacted. Raises IndexingError if
        ``folder`` is there already, the disk is full, or what is read is damaged."""
        self.refresh()
        view, own = self.view, self.bundle

        def models(place: Path) -> None:
            shutil.copytree(own.check_models(), place, dirs_exist_ok=True)

        creation.create(
            folder,
            models=models,
            config=own.config,
            codebooks=own.codebooks,
            content=lambda place: compaction.write(view, own, place),
            replace=False,
        )

    def refresh(self) -> None:
        """Takes in what a writer in another process has acknowledged since; two looks at the
        folder where that is nothing. Of an index that has been deleted, all that was read stays."""
        if self._writer is not None or self._signature == self._sign():
            return
        if not self.bundle.folder.exists():
            return  # deleted as a whole; what was read is still there
        with self._changing:
            signature = self._sign()
            self.view = bundle.caught_up(self.bundle, self.view)
            self._signature = signature

    def _sign(self) -> Signature:
        return bundle.signature(self.bundle, self.view.generation.number)

    def info(self) -> dict[str, Any]:
        """What the index is, as plain values: images alive, of them trained on and added since the
        last compaction; rows taken by images that are gone; the shape of codes and embeddings;
        metadata columns; bytes on the disk."""
        view, (levels, size, width) = self.view, self.bundle.codebooks.shape
        snapshot, files = view.snapshot, view.generation.files
        return {
            "folder": str(self.bundle.folder),
            "generation": view.generation.number,
            "writable": self._writer is not None,
            "images": len(snapshot),
            "trained": len(snapshot) - sum(map(len, snapshot.fresh_tries)),
            "added": sum(map(len, snapshot.live_tries[1:])),
            "dead_rows": snapshot.rows - len(snapshot),
            "levels": levels,
            "codebook": size,
            "width": width,
            "columns": {name: str(kind) for name, kind in view.items.schema.items()},
            "bytes": {
                "generation": sum(file["size"] for file in files.values()),
                "log": view.position.offset,
                "models": sum(file["size"] for file in self.bundle.models.values()),
            },
            "config": self.bundle.config,
        }

    @contextmanager
    def _writing(self) -> Iterator[Writer]:
        """One change at a time, from the latest view."""
        with self._changing:
            folder, writer = self.bundle.folder, self._writer
            if self._closed:
                raise IndexingError(f"{folder} was closed: open it again")
            if writer is None:
                raise IndexingError(f"{folder} was opened for reading: open it with writable=True")
            if writer.process != os.getpid():
                raise IndexingError(
                    f"{folder} was opened by process {writer.process}, of which this is a fork: "
                    "only that one may change it"
                )
            if self.view.position != writer.log.position:  # an interrupt came in between
                self.view = bundle.caught_up(self.bundle, self.view)
            yield writer

    def _commit(self, record: Rows | Removal) -> None:
        """Makes a change last, then seen. All that can fail, fails before."""
        with self._writing() as writer:
            if len(record):
                view = aside(after, self.view, [record], self.view.position)
                writer.log.append(encode(record))
                self.view = replace(view, position=writer.log.position)
