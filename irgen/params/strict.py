"""Plain values, as YAML and JSON hold them, checked against a dataclass: strictly."""

import dataclasses
import difflib
import json
import math
import typing
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from irgen.errors import ParamsError

EXPECTED = {  # by pydantic's name of an error
    "int_type": "a whole number",
    "float_type": "a number",
    "string_type": "text",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping",
    "dataclass_type": "a section with keys",
}
BOUNDS = {
    "greater_than_equal": ("at least", "ge"),
    "less_than_equal": ("at most", "le"),
}


def parse(kind: Any, value: Any, *, where: str) -> Any:
    """Return ``value`` as ``kind``, a dataclass. Convert nothing but int to float and list to
    tuple; a key that is left out has its default. Raise ParamsError naming the place in ``where``,
    the value and what is allowed."""
    _check_plain(value, where)
    adapter = TypeAdapter(kind)
    try:
        return adapter.validate_json(json.dumps(value), strict=True, extra="forbid")
    except ValidationError as error:
        errors = error.errors(include_url=False)
    unknown = [error for error in errors if error["type"] == "unexpected_keyword_argument"]
    first = (unknown or errors)[0]
    raise ParamsError(_describe(kind, first, where)) from None


def _check_plain(value: Any, where: str) -> None:
    """Raise ParamsError for a value that JSON cannot hold."""
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise ParamsError(f"{where}: unknown key {key!r}: expected text")
            _check_plain(item, f"{where}: {key}")
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            _check_plain(item, f"{where}[{number}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ParamsError(f"{where}: expected a finite number, found {value}")
    elif not isinstance(value, str | int | float | None):
        raise ParamsError(f"{where}: expected text, a number, a list or a section, found {value!r}")


def _describe(kind: Any, error: Any, where: str) -> str:
    """Describe where the wrong value is, what it is, and what is allowed."""
    path, name, value = list(error["loc"]), error["type"], error["input"]
    if name == "unexpected_keyword_argument":
        return f"{_join(where, path[:-1])}: {_suggest(path[-1], _keys_at(kind, path[:-1]))}"
    if name == "missing":
        return f"{_join(where, path[:-1])}: key {path[-1]!r} is missing"
    position, context = _join(where, path), error.get("ctx", {})
    if name in EXPECTED:
        hint = " (YAML reads 1e-3 as text: write 1.0e-3)" if _is_exponent(name, value) else ""
        return f"{position}: expected {EXPECTED[name]}, found {value!r}{hint}"
    if name in BOUNDS:
        words, bound = BOUNDS[name]
        return f"{position}: {value} is out of range; allowed: {words} {context[bound]:g}"
    if name == "literal_error":
        return f"{position}: {value!r} is not allowed; choose {context['expected']}"
    if name == "too_short":
        return f"{position}: give at least one value, found an empty list"
    return f"{position}: {error['msg']}, found {value!r}"


def _is_exponent(name: str, value: Any) -> bool:
    return name == "float_type" and isinstance(value, str)


def _join(where: str, path: Sequence[str | int]) -> str:
    """Return the place of a value: ``params.yaml: evaluate: cutoffs[0]``."""
    return where + "".join(f"[{part}]" if isinstance(part, int) else f": {part}" for part in path)


def _keys_at(kind: Any, path: Sequence[str | int]) -> list[str]:
    """Return the keys of the section at ``path`` in the dataclass ``kind``."""
    for part in path:
        inner = typing.get_args(kind)
        kind = inner[-1] if inner else typing.get_type_hints(kind)[str(part)]
    return [field.name for field in dataclasses.fields(kind)]


def _suggest(key: str, valid: list[str]) -> str:
    near = difflib.get_close_matches(key, valid, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(valid)}"
    return f"unknown key {key!r}; {hint}"


class _Loader(yaml.SafeLoader):
    """YAML without duplicate keys, of which SafeLoader keeps the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key.value for key, _ in node.value if key.value != "<<"]
        for number, key in enumerate(keys):
            if key in keys[:number]:
                problem = f"key {key!r} is given twice"
                raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> Any:
    """Return what a YAML file holds. Raise ParamsError if it is missing, is not valid YAML, or
    gives a key twice."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except FileNotFoundError:
        raise ParamsError(f"{path} is missing: run from the project's root") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None


def flatten(section: Any, prefix: str = "") -> dict[str, Any]:
    """Return a section as dotted keys and plain values, for tracking and digests."""
    flat: dict[str, Any] = {}
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        if dataclasses.is_dataclass(value):
            flat |= flatten(value, f"{prefix}{field.name}.")
        else:
            flat[f"{prefix}{field.name}"] = list(value) if isinstance(value, tuple) else value
    return flat
