"""DVC's lock file parsed in C and written whole or not at all, once this is imported.

Whenever DVC writes ``dvc.lock`` it reads it first, by a parser that keeps comments and is written
in Python: a third of a second for two thousand lines, which have no comments. Then it writes it in
place, for as long: whoever is killed meanwhile leaves an empty one, and nothing goes on. What it
writes is the same here. ``warm.LIBRARIES`` has this for the DVC commands of a pass.
"""

import os
from pathlib import Path
from typing import Any

from dvc.utils.serialize import _common, _yaml

NAME = "dvc.lock"
keeping_comments, in_place = _yaml.parse_yaml_for_update, _common._dump_data


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


_yaml.parse_yaml_for_update, _common._dump_data = parse, dump
