"""Copies of an index."""

import os
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import polars as pl
from torch import Tensor

from irgen.errors import IndexingError
from irgen.files import sealed
from irgen.index import base_files, damage, folder
from irgen.index.database import Database
from irgen.index.folder import Folder
from irgen.index.view import View

COPIED_FROM = "copied_from"  # in the configuration of a copy: the state of its source
SOURCE = "source.parquet"  # in the folder of a copy: ids and metadata that its source had then


def copy(source: Path, path: Path) -> None:
    """Create at ``path`` an index of what the one at ``source`` holds: whole, or not at all.

    The two share files that never change by hard links, where the file system can; the SQLite file
    is the copy's own. The copy remembers the ``state`` of ``source``, and its images
    (``read_source``). Raise IndexingError if there is something at ``path``, or if ``source`` is no
    index, is damaged, or changes meanwhile.
    """
    own, before = folder.read(source), state(source)
    with closing(Database(source)) as file:
        view = own.load(file)

    def write_content(target: Path) -> None:
        if view.is_compact:
            shutil.copytree(view.base.folder, target, copy_function=_link)
            base_files.verify(target)
        else:
            write_base(view, target)
        write_source(target.parents[1], view.take(view.snapshot.alive_rows().numpy()))
        if state(source) != before:
            raise IndexingError(f"{source} was changed while it was copied: repeat")

    config = own.config | {COPIED_FROM: before}
    write(own, path, config, write_content, _link)


def write(
    own: Folder,
    path: Path,
    config: dict[str, Any],
    write_content: Callable[[Path], Any],
    copy_file: Callable[[str, str], Any] = shutil.copyfile,
) -> None:
    """Create at ``path`` an index with the models of ``own``."""

    def write_models(target: Path) -> None:
        shutil.copytree(own.check_models(), target, copy_function=copy_file, dirs_exist_ok=True)

    folder.create(
        path,
        write_models=write_models,
        write_base=write_content,
        config=config,
        codebooks=own.codebooks,
        replace=False,
    )


def write_base(view: View, target: Path) -> None:
    """Write the images of ``view`` as a base into the new folder ``target``. Raise IndexingError if
    the embeddings that are read are damaged."""
    view.base.check_embeddings()
    alive = view.snapshot.alive_rows()

    def embeddings(rows: Tensor) -> Tensor:
        return view.snapshot.gather(alive[rows], "embeddings")

    width = view.base.segment.embeddings.shape[1]
    base_files.write(target, view.gather(alive.numpy()), embeddings, width)


def write_source(folder: Path, table: pl.DataFrame) -> None:
    """Write ids and metadata of the source of the copy in ``folder``, for ``read_source``."""
    sealed.write_parquet(folder / SOURCE, table)


def read_source(folder: Path) -> pl.DataFrame | None:
    """Return ids and metadata that the source of a copy had when it was copied; None if that was
    not noted, by an earlier version. Raise ArtifactError if the file is damaged."""
    if not (folder / SOURCE).exists():
        return None
    return sealed.read_parquet(folder / SOURCE, damage.REMEDY)


def state(path: Path) -> dict[str, Any]:
    """Return what identifies the content of an index at this moment. Raise IndexingError if there
    is none."""
    folder.read(path)
    with closing(Database(path)) as file:
        now = file.state()
    return {"owner": now.owner, "revision": now.revision}


def has_moved_on(source: Path, config: dict[str, Any]) -> bool:
    """Tell whether the index at ``source`` has changed since a copy with this configuration was
    made of it; False for what is no copy, or if there is no index at ``source``."""
    if COPIED_FROM not in config:
        return False
    try:
        return state(source) != config[COPIED_FROM]
    except IndexingError:
        return False


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)
