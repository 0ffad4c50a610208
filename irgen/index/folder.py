"""Folder of an index, created, replaced and copied as a whole or not at all.

index.json        format, version, configuration, checksums of codebooks and models
codebooks.npy     (M, L, D) float32, the tokenizer's
models/           the networks that encode images and predict codes
base/<n>/         the images when base n was written; one base counts
changes.sqlite    which base that is, and what changed since
source.parquet    of a copy: ids and metadata of the index that it was copied from
lock              held by the one writer
"""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor

from irgen.errors import IndexingError, LockedError
from irgen.files import locks
from irgen.files.atomic import sync, sync_tree
from irgen.files.digests import checksum, checksums, digest
from irgen.index import base_files, damage, database
from irgen.index.base_files import Base
from irgen.index.database import Database
from irgen.index.view import View

FORMAT, VERSION = "irgen-index", 2
DESCRIPTION, CODEBOOKS, MODELS, LOCK = "index.json", "codebooks.npy", "models", "lock"
WAITING = ".waiting.tmp"  # a file that those hold who wait for the lock
SWAP_SECONDS = 1.0  # that two renames take at most
POLL_SECONDS = 0.05  # between tries to lock an index that has a writer


@dataclass(frozen=True)
class Folder:
    """An index's folder and what never changes in it: configuration, ``codebooks`` (M, L, D)
    float32, and size and SHA-256 of the files below ``models``. ``digest`` identifies all that."""

    path: Path
    config: dict[str, Any]
    codebooks: Tensor
    models: dict[str, dict[str, Any]]
    digest: str

    def base(self, number: int) -> Path:
        """Return the folder of a base."""
        return self.path / "base" / str(number)

    def owner(self, content: str) -> str:
        """Return what the SQLite file says of the base with the digest ``content``."""
        return digest(self.digest, content)

    def check_models(self) -> Path:
        """Return the folder of the models. Raise IndexingError if one of them is missing or
        damaged."""
        for name, expected in self.models.items():
            damage.check(self.path / MODELS / name, expected)
        return self.path / MODELS

    def read_base(self, number: int) -> Base:
        """Open a base. Raise IndexingError if it is missing or damaged."""
        return base_files.read(self.base(number), number)

    def load(self, file: Database, *, verify: bool = False) -> View:
        """Return the view of all that was committed. Raise IndexingError if a file is damaged; with
        ``verify``, the embeddings are checked, too."""
        while True:
            state = file.state()
            try:
                start = self.read_base(state.base)
                if verify:
                    base_files.verify(start.folder)
            except IndexingError:
                if file.state().base != state.base:
                    continue  # a compaction has just deleted it
                raise
            if self.owner(start.digest) != state.owner:
                raise damage.damaged(start.folder, f"{file.path} belongs to another base or index")
            view = View.of(start, self.codebooks)
            state, changes = file.read(after=0)
            if state.base == start.number:
                return view.apply(changes, state.revision)

    def prune(self, number: int) -> None:
        """Delete all bases but ``number``, and what killed writers left. For the writer alone; a
        reader that has mapped a deleted file keeps it."""
        for path in self.base(number).parent.iterdir():
            if path != self.base(number):
                shutil.rmtree(path, ignore_errors=True)


def read(path: Path) -> Folder:
    """Return the index's folder at ``path``. Raise IndexingError if there is none, or if it is
    damaged or of a newer version. Of the models, only sizes are checked."""
    description = _read_description(path)
    damage.check(path / CODEBOOKS, description["codebooks"])
    for name, expected in description["models"].items():
        damage.check_size(path / MODELS / name, expected)
    codebooks = torch.from_numpy(np.load(path / CODEBOOKS))
    config, models = description["config"], description["models"]
    return Folder(path, config, codebooks, models, description["digest"])


def _read_description(path: Path) -> dict[str, Any]:
    file = path / DESCRIPTION
    if not path.exists():
        raise IndexingError(f"there is no index at {path}: make one first (dvc repro index)")
    if not file.exists():
        raise IndexingError(f"{path} is not an index: it has no {DESCRIPTION}")
    description = damage.read_sealed(file)
    if description.get("format") != FORMAT:
        raise IndexingError(f"{path} is not an index: {file} does not say format {FORMAT!r}")
    if description["version"] > VERSION:
        raise IndexingError(
            f"{path} was written by a newer irgen (version {description['version']} of the format; "
            f"this one reads {VERSION}): update irgen"
        )
    return description


def create(
    path: Path,
    *,
    write_models: Callable[[Path], Any],
    write_base: Callable[[Path], Any],
    config: dict[str, Any],
    codebooks: Tensor,
    replace: bool,
) -> None:
    """Create an index at ``path``, whole or not at all.

    ``write_models`` writes into an empty folder, ``write_base`` creates the one it is given. Raise
    IndexingError if something is at ``path``; with ``replace``, only if that is no index or has a
    writer.
    """
    with damage.writing(f"creating {path}"), _appearing(path, replace) as new:
        (new / MODELS).mkdir()
        write_models(new / MODELS)
        np.save(new / CODEBOOKS, codebooks.detach().float().cpu().numpy())
        description = {
            "format": FORMAT,
            "version": VERSION,
            "config": config,
            "codebooks": checksum(new / CODEBOOKS),
            "models": checksums(new / MODELS),
        }
        damage.write_sealed(new / DESCRIPTION, description)
        write_base(new / "base" / "1")
        content = damage.read_sealed(new / "base" / "1" / base_files.DESCRIPTION)["digest"]
        database.create(new, 1, read(new).owner(content))
        sync_tree(new)


@contextmanager
def _appearing(path: Path, replace: bool) -> Iterator[Path]:
    """Yield an empty folder beside ``path`` that takes its place when the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _delete_abandoned(path)
    new = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with ExitStack() as stack:
        replaces = _is_index_to_replace(path, replace)
        if replaces:
            stack.callback(lock(path).release)
        new.mkdir()
        stack.callback(shutil.rmtree, new, ignore_errors=True)
        stack.callback(lock(new).release)
        yield new
        if replaces:
            swap_in(new, path)
        else:
            new.rename(path)
            sync(path.parent)


@contextmanager
def building(path: Path) -> Iterator[Path]:
    """Yield a path at which to create the index that may take the place of the one at ``path``
    (``swap_in``). What is left there after the block is deleted."""
    _delete_abandoned(path)
    around = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    around.mkdir()
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, around, ignore_errors=True)
        stack.callback(lock(around).release)
        yield around / path.name


def swap_in(new: Path, path: Path) -> None:
    """Put the index ``new`` in the place of the one at ``path``, which is deleted; the caller holds
    the lock of that one. It takes two renames: between them the old index lies beside ``path``, as
    ``.<name>.<process>.old.tmp``, from where ``restore`` gets it if this process is killed. Then
    that name goes, too, so that nobody restores it any more."""
    old, gone = (
        path.with_name(f".{path.name}.{os.getpid()}.{state}.tmp") for state in ("old", "gone")
    )
    try:
        path.rename(old)
        new.rename(path)
        sync(path.parent)
    except BaseException:
        if old.exists() and not path.exists():
            old.rename(path)
        raise
    old.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def identify(path: Path) -> int | None:
    """Return a number that changes when another index takes the place of that at ``path``; None if
    there is none."""
    restore(path)
    with suppress(OSError):
        return path.stat().st_ino
    return None


def restore(path: Path) -> None:
    """Put back the index that a killed ``swap_in`` left beside ``path``. If a process is at it just
    now, wait until it has put the new one there."""
    end = time.monotonic() + SWAP_SECONDS
    while not path.exists() and time.monotonic() < end:
        old = next(path.parent.glob(f".{path.name}.*.old.tmp"), None)
        if old is None:
            return
        with suppress(IndexingError, OSError):  # its process lives, or nothing can be written
            held = lock(old)
            try:
                old.rename(path)
            finally:
                held.release()
        time.sleep(0.01)


def _is_index_to_replace(path: Path, replace: bool) -> bool:
    """Tell whether an index stands at ``path``. Raise IndexingError if it must stay, or if it is
    something else than an empty folder."""
    if not os.path.lexists(path) or (path.is_dir() and not any(path.iterdir())):
        return False
    if not replace:
        raise IndexingError(f"{path} is there already: choose another folder, or replace it")
    if not (path / DESCRIPTION).is_file():
        raise IndexingError(f"{path} is not an index, so it is not replaced: delete it yourself")
    return True


def _delete_abandoned(path: Path) -> None:
    """Delete what killed processes left beside ``path``: folders whose lock is free."""
    restore(path)
    for left in path.parent.glob(f".{path.name}.*.tmp"):
        with suppress(IndexingError, OSError):
            if (left / LOCK).exists():
                held = lock(left)
                shutil.rmtree(left)
                held.release()


def lock(path: Path, wait: float = 0.0) -> FileLock:
    """Lock the index at ``path`` for its one writer, until the lock is released or this process
    ends. Raise LockedError, naming the process, if it still has a writer after ``wait`` seconds."""
    deadline = time.monotonic() + wait
    while True:
        try:
            return _lock_now(path)
        except (LockedError, FileNotFoundError):  # not there for a moment: it is being replaced
            if time.monotonic() >= deadline:
                raise
        with suppress(OSError), locks.announce_waiting(path / WAITING):
            time.sleep(POLL_SECONDS)
            continue
        time.sleep(POLL_SECONDS)


def is_awaited(path: Path) -> bool:
    """Tell whether somebody waits for the lock of the index at ``path``."""
    return locks.is_awaited(path / WAITING)


def _lock_now(path: Path) -> FileLock:
    file = path / LOCK
    while True:
        file.touch()
        before = file.stat().st_ino
        held = FileLock(file, timeout=0, thread_local=False)
        try:
            held.acquire()
        except Timeout:
            number = file.read_text().strip()
            holder = f"process {number}" if number else "a process"
            raise LockedError(path, holder) from None
        if file.exists() and file.stat().st_ino == before:
            file.write_text(f"{os.getpid()}\n")
            return held
        held.release()  # the folder was replaced in between
