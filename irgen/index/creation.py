"""How a bundle comes to be: whole in a folder beside, down to the last byte on the disk, then
renamed."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from torch import Tensor

from irgen.errors import IndexingError
from irgen.index import bundle, disk, generation, lock, log


def create(
    folder: Path,
    *,
    models: Callable[[Path], Any],
    config: dict[str, Any],
    codebooks: Tensor,
    content: Callable[[Path], Any],
    replace: bool,
) -> None:
    """Writes a bundle: whole at ``folder``, or not at all.

    ``models`` writes the models into an empty folder, ``content`` the first generation into a new
    one. Raises IndexingError if something is there already; with ``replace``, only if that is
    not an index or has a writer. Replacing takes two renames: killed between them, it leaves no
    index at ``folder`` but the old one beside it, ``.<name>.<process>.old.tmp``, until the next one
    is made there.
    """
    with disk.full_disk_told(f"making {folder}"), _appearing(folder, replace) as new:
        (new / bundle.MODELS).mkdir()
        models(new / bundle.MODELS)
        content(new / "generations" / "1")
        books = codebooks.detach().float().cpu().numpy()
        disk.write(new / bundle.CODEBOOKS, generation.array_bytes(books))
        about = {
            "format": bundle.FORMAT,
            "version": bundle.VERSION,
            "config": config,
            "codebooks": disk.sum_of(new / bundle.CODEBOOKS),
            "models": disk.sums(new / bundle.MODELS),
        }
        disk.write_sealed(new / bundle.ABOUT, about)
        first = generation.owner(generation.read_about(new / "generations" / "1"), 1)
        (new / "logs").mkdir()
        disk.write(new / "logs" / "1.log", [log.contents(first)[0]])
        disk.write(new / bundle.CURRENT, [b"1\n"])
        disk.settle_tree(new)


@contextmanager
def _appearing(folder: Path, replace: bool) -> Iterator[Path]:
    """An empty folder beside ``folder`` that takes its place when the block ends well."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    _clear_abandoned(folder)
    with _giving_way(folder, replace) as old:
        new = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
        new.mkdir()
        try:
            with lock.take(new / bundle.LOCK):
                yield new
                if old is not None:
                    folder.rename(old)
                new.rename(folder)
                disk.settle(folder.parent)
        finally:
            shutil.rmtree(new, ignore_errors=True)


@contextmanager
def _giving_way(folder: Path, replace: bool) -> Iterator[Path | None]:
    """Where to put what stands at ``folder``, if anything does; it is deleted when the block ends
    well, and stands where it stood if not."""
    if not os.path.lexists(folder) or (folder.is_dir() and not any(folder.iterdir())):
        yield None
        return
    if not replace:
        raise IndexingError(f"{folder} is there already: choose another folder, or replace it")
    if not (folder / bundle.ABOUT).is_file():
        raise IndexingError(f"{folder} is not an index, so it is not replaced: delete it yourself")
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old.tmp")
    with lock.take(folder / bundle.LOCK):
        try:
            yield old
        except BaseException:
            if old.exists() and not folder.exists():
                old.rename(folder)
            raise
        shutil.rmtree(old, ignore_errors=True)


def _clear_abandoned(folder: Path) -> None:
    """Deletes what killed processes left beside ``folder``: those whose lock is free."""
    for path in folder.parent.glob(f".{folder.name}.*.tmp"):
        with suppress(IndexingError, OSError):
            if (path / bundle.LOCK).exists():
                with lock.take(path / bundle.LOCK):
                    shutil.rmtree(path)
