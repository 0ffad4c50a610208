"""DVC's lock file parsed in C, once this is imported.

Whenever DVC writes ``dvc.lock`` it reads it first, by a parser that keeps comments and is written
in Python: a third of a second for two thousand lines, which have no comments. What it writes then
is the same. ``warm.LIBRARIES`` has it for the DVC commands of a pass over the pipeline.
"""

from pathlib import Path
from typing import Any

from dvc.utils.serialize import _yaml

NAME = "dvc.lock"
keeping_comments = _yaml.parse_yaml_for_update


def parse(text: str, path: str) -> Any:
    """What there is in a YAML file; with its comments if it may have some."""
    if Path(path).name == NAME:
        return _yaml.parse_yaml(text, path)
    return keeping_comments(text, path)


_yaml.parse_yaml_for_update = parse
