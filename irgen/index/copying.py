"""A second index of what is in one, at the price of a few links."""

import os
import shutil
from pathlib import Path
from typing import Any

from irgen.errors import IndexingError
from irgen.index import bundle, compaction, creation, generation
from irgen.index.bundle import Bundle
from irgen.index.log import beginning

MADE_FROM = "made_from"  # in the configuration of a copy: the state of what it was made from


def copy(source: Path, folder: Path) -> None:
    """Makes at ``folder`` an index of what is in the one at ``source``: whole, or not at all.

    From then on they have nothing to do with each other. Files that never change are shared by hard
    links where the file system can, else copied. The new one remembers the ``state`` of ``source``.
    Raises IndexingError if there is something at ``folder``, if ``source`` is no index, damaged,
    or changed meanwhile.
    """
    own = bundle.read(source)
    before = state(source)
    view = bundle.load(own)

    def models(place: Path) -> None:
        _share(own.check_models(), place)

    def content(place: Path) -> None:
        now = view.generation
        if view.position == beginning(now.owner):
            _share(own.generation(now.number), place)
            generation.verify(place)
        else:
            compaction.write(view, own, place)
        if state(source) != before:
            raise IndexingError(f"{source} was changed while it was copied: repeat")

    creation.create(
        folder,
        models=models,
        config=own.config | {MADE_FROM: before},
        codebooks=own.codebooks,
        content=content,
        replace=False,
    )


def state(folder: Path) -> dict[str, Any]:
    """What an index is at this moment; equal as long as nothing is changed in it. Raises
    IndexingError if there is none."""
    own = bundle.read(folder)
    number = bundle.current(folder)
    return {
        "bundle": own.digest,
        "generation": generation.read_about(own.generation(number))["digest"],
        "log": _size(own, number),
    }


def has_moved_on(source: Path, config: dict[str, Any]) -> bool:
    """Whether ``source`` is another index now than a copy with this configuration was made from;
    False for what is no copy, or if there is no index at ``source`` to compare with."""
    if MADE_FROM not in config:
        return False
    try:
        return state(source) != config[MADE_FROM]
    except IndexingError:
        return False


def _size(own: Bundle, number: int) -> int:
    try:
        return own.log(number).stat().st_size
    except OSError as error:
        raise IndexingError(f"{error.filename} cannot be read ({error.strerror})") from None


def _share(folder: Path, place: Path) -> None:
    """Puts every file of ``folder`` into ``place`` too."""
    shutil.copytree(folder, place, copy_function=_link, dirs_exist_ok=True)


def _link(path: str, new: str) -> None:
    try:
        os.link(path, new)
    except OSError:  # another file system, or one without links
        shutil.copyfile(path, new)
