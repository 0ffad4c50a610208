"""Write a preset into `params.yaml`, whose comments and order stay as they are."""

import hashlib
import io
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from irgen.params import Params, load
from irgen.params.presets import EVERY, Values, digits
from irgen.params.strict import flatten, parse

MARK = "# Written by: irgen init "  # starts the line that tells which command wrote the file


def list_edits(path: Path) -> list[str]:
    """Return the settings of a file, `section.key: value`, that are neither defaults nor as irgen
    init wrote them; those that a user would lose. Raises ParamsError for an invalid file."""
    first, _, rest = path.read_text(encoding="utf-8").partition("\n")
    if first.startswith(MARK) and first.endswith(f"({_digest(rest)})"):
        return []
    values, defaults = flatten(load(path)), flatten(_defaults())
    ignored = "catalog.training_revision"  # of another file
    return [
        f"{name}: {value}"
        for name, value in values.items()
        if name != ignored and value != defaults[name]
    ]


def apply_values(text: str, parts: Iterable[Values], command: str) -> str:
    """Return the text of a settings file with the values of `parts`, later ones first, and a first
    line that names the command. Keys that another preset sets, and these do not, get their
    defaults; all others stay."""
    if text.startswith(MARK):
        text = text.partition("\n")[2]
    yaml = YAML()
    yaml.width, yaml.preserve_quotes = 4096, True
    tree, defaults = yaml.load(text), _defaults()
    values = merge_values(parts)
    for section, keys in merge_values(EVERY).items():
        for key in keys:
            default = getattr(getattr(defaults, section), key)
            value = values.get(section, {}).get(key, default)
            _set(tree.setdefault(section, CommentedMap()), key, value, default)
    for section in values.keys() - merge_values(EVERY).keys():
        for key, value in values[section].items():
            _set(tree.setdefault(section, CommentedMap()), key, value, None)
    stream = io.StringIO()
    yaml.dump(tree, stream)
    rest = re.sub(r"(?<=\S) {2,}# ", " # ", stream.getvalue())  # comments in their old columns
    return f"{MARK}{command} ({_digest(rest)})\n{rest}"


def merge_values(parts: Iterable[Values]) -> Values:
    """Return the values of all parts by section and key; a later part replaces those before it."""
    merged: Values = {}
    for part in parts:
        for section, keys in part.items():
            merged[section] = merged.get(section, {}) | keys
    return merged


def _set(section: Any, key: str, value: Any, default: Any) -> None:
    if section.get(key, default) == value:
        return
    if isinstance(value, Mapping):
        value = CommentedMap(value)
        value.fa.set_flow_style()
    if key in section:
        section[key] = value
    else:  # before the last key, with which the blank line after the section goes
        section.insert(max(len(section) - 1, 0), key, value)


def _defaults() -> Params:
    least = {"download": {"source": "digits"}, **digits()}
    return parse(Params, least, where="defaults")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
