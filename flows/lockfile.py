"""DVC's lock files written whole or not at all, and ``dvc.lock`` parsed in C, once this is
imported; ``python -m flows.lockfile repro …`` is ``dvc repro …`` with it.

Whenever DVC writes ``dvc.lock`` it reads it first, by a parser that keeps comments and is written
in Python: a third of a second for two thousand lines, which have no comments. Then it writes it in
place, for as long; so it does ``.dvc/tmp/rwlock``, who has which files. Whoever is killed meanwhile
leaves one that is empty or cut off, and nothing goes on. What DVC writes is the same here.
``warm.LIBRARIES`` has this for the DVC commands of a pass.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from dvc import rwlock
from dvc.utils.serialize import _common, _yaml

NAME = "dvc.lock"
keeping_comments, in_place = _yaml.parse_yaml_for_update, _common._dump_data
edited = rwlock._edit_rwlock


def parse(text: str, path: str) -> Any:
    """What there is in a YAML file; with its comments if it may have some."""
    if Path(path).name == NAME:
        return _yaml.parse_yaml(text, path)
    return keeping_comments(text, path)


def dump(path: str, data: Any, dumper: Any, fs: Any = None, **options: Any) -> None:
    """Writes a file of DVC's; the lock file takes its place when it is whole."""
    if Path(path).name != NAME:
        in_place(path, data, dumper, fs=fs, **options)
        return
    temporary = Path(path).with_name(f".{NAME}.{os.getpid()}.tmp")
    try:
        in_place(temporary, data, dumper, **options)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


class Whole:
    """A file system of DVC's, local, in which a file that is written takes its place when it is
    whole."""

    def __init__(self, fs: Any):
        self.fs = fs

    def __getattr__(self, name: str) -> Any:
        return getattr(self.fs, name)

    @contextmanager
    def open(self, path: str, mode: str = "r", **options: Any) -> Iterator[Any]:
        temporary = f"{path}.{os.getpid()}.tmp" if "w" in mode else path
        with self.fs.open(temporary, mode, **options) as file:
            yield file
        if temporary != path:
            Path(temporary).replace(path)


def edit(folder: str, fs: Any, hardlink: bool) -> AbstractContextManager:
    """DVC's file of who has which files, to be changed."""
    return edited(folder, Whole(fs), hardlink)


_yaml.parse_yaml_for_update, _common._dump_data = parse, dump
rwlock._edit_rwlock = edit

if __name__ == "__main__":
    from dvc.cli import main

    sys.exit(main(sys.argv[1:]))
