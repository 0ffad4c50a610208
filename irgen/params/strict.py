"""Plain values, as YAML and JSON hold them, checked against a dataclass: strictly."""

import dataclasses
import difflib
import json
import math
import typing
from collections.abc import Hashable, Sequence
from datetime import date
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
DEEPEST = 20  # lists and sections in each other; one that contains itself has no end
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


def _check_plain(value: Any, where: str, depth: int = 0) -> None:
    """Raise ParamsError for a value that JSON cannot hold."""
    if depth > DEEPEST:
        raise ParamsError(f"{where}: more than {DEEPEST} lists or sections lie in each other")
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise ParamsError(f"{where}: unknown key {key!r}: expected text")
            _check_plain(item, f"{where}: {key}", depth + 1)
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            _check_plain(item, f"{where}[{number}]", depth + 1)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ParamsError(f"{where}: expected a finite number, found {value}")
    elif not isinstance(value, str | int | float | None):
        quotes = " (put text that looks like a date in quotes)" if isinstance(value, date) else ""
        raise ParamsError(
            f"{where}: expected text, a number, a list or a section, found {value}{quotes}"
        )


def _describe(kind: Any, error: Any, where: str) -> str:
    """Describe where the wrong value is, what it is, and what is allowed."""
    path, name, value = list(error["loc"]), error["type"], error["input"]
    if name == "unexpected_keyword_argument":
        return f"{_join(where, path[:-1])}: {_suggest(path[-1], _keys_at(kind, path[:-1]))}"
    if name == "missing":
        return f"{_join(where, path[:-1])}: key {path[-1]!r} is missing"
    position, context = _join(where, path), error.get("ctx", {})
    if name in EXPECTED:
        return f"{position}: expected {EXPECTED[name]}, found {value!r}{_hint(name, value)}"
    if name in BOUNDS:
        words, bound = BOUNDS[name]
        limit = context[bound]
        number = f"{limit:,}" if isinstance(limit, int) else f"{limit:g}"
        return f"{position}: {value} is out of range; allowed: {words} {number}"
    if name == "literal_error":
        return f"{position}: {value!r} is not allowed; choose {context['expected']}"
    if name == "too_short":
        return f"{position}: give at least one value, found an empty list"
    return f"{position}: {error['msg']}, found {value!r}"


def _hint(name: str, value: Any) -> str:
    """Explain what YAML makes of a value, where that surprises people."""
    if name == "float_type" and isinstance(value, str):
        return " (YAML reads 1e-3 as text: write 1.0e-3)"
    if name == "string_type" and isinstance(value, bool | int | float):
        words = "yes, no, on and off as true or false" if isinstance(value, bool) else "it so"
        return f" (YAML reads {words}: put text in quotes)"
    if name == "int_type" and isinstance(value, str) and value.strip().isdigit():
        return " (take the quotes away)"
    return ""


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
    """YAML without duplicate keys, of which SafeLoader keeps the last, and without numbers that it
    reads otherwise than DVC does: 010 as 8, 1:30 as 90."""

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        text = node.value.lstrip("+-")
        if ":" in text or (text[:1] == "0" and text[1:].isdigit()):
            problem = f"{node.value} is no plain number: write it without colon and leading zeros"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        return super().construct_yaml_int(node)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if key.value in lines and key.value != "<<":
                problem = f"key {key.value!r} is given twice, first in line {lines[key.value]}"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            lines[key.value] = key.start_mark.line + 1
        return super().construct_mapping(node, deep)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def read_yaml(path: Path) -> Any:
    """Return what a YAML file holds. Raise ParamsError, naming the line, if it is missing, is not
    valid YAML, or gives a key twice."""
    try:
        with path.open(encoding="utf-8") as file:
            return yaml.load(file, _Loader)
    except FileNotFoundError:
        raise ParamsError(f"{path} is missing: run from the project's root") from None
    except OSError as error:
        raise ParamsError(f"{path} cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise ParamsError(f"{path} is not in UTF-8 ({error}): save it in that encoding") from None
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        hint = " (indent with blanks, not with tabs)" if r"'\t'" in reason else ""
        raise ParamsError(f"{path} is not valid YAML: {reason}{hint}") from None
    except (ValueError, RecursionError) as error:  # of a date or a number that cannot be
        raise ParamsError(f"{path} is not valid YAML: {error}") from None


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
