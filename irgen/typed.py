"""Plain values, such as YAML and JSON hold, as frozen dataclasses and back: strictly."""

import dataclasses
import difflib
import types
import typing
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from irgen.errors import ParamsError


@dataclass(frozen=True)
class Range:
    """What a number may be, beside its type: ``Annotated[int, Range(1, 16)]``; ``high`` None: as
    large as it likes."""

    low: float
    high: float | None = None

    def __contains__(self, value: float) -> bool:
        return self.low <= value and (self.high is None or value <= self.high)

    def __str__(self) -> str:
        if self.high is None:
            return f"at least {self.low:g}"
        return f"from {self.low:g} to {self.high:g}"


def parse(kind: Any, value: Any, *, where: str) -> Any:
    """``value`` as ``kind``, a dataclass or the type of one of its fields; strict, no conversion
    but int → float and list → tuple. Raises ParamsError, which names the place, the value and what
    was expected."""
    if dataclasses.is_dataclass(kind):
        return _parse_section(kind, value, where)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        return _within(parse(arguments[0], value, where=where), arguments[1], where)
    if origin is Literal:
        if value not in arguments or isinstance(value, bool):
            allowed = ", ".join(map(str, arguments))
            raise ParamsError(f"{where}: {value!r} is not allowed; choose one of {allowed}")
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise ParamsError(f"{where}: expected a list, found {value!r}")
        return tuple(
            parse(arguments[0], item, where=f"{where}[{i}]") for i, item in enumerate(value)
        )
    if origin in (dict, types.MappingProxyType):
        if not isinstance(value, dict):
            raise ParamsError(f"{where}: expected a mapping, found {value!r}")
        return value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ParamsError(f"{where}: expected {kind.__name__}, found {value!r}{_hint(kind, value)}")
    if value != value:  # only nan is not itself
        raise ParamsError(f"{where}: expected a number, found nan")
    return value


def _within(value: Any, allowed: Range, where: str) -> Any:
    if value not in allowed:
        raise ParamsError(f"{where}: {value} is out of range; allowed: {allowed}")
    return value


def _hint(kind: Any, value: Any) -> str:
    if kind is float and isinstance(value, str):
        return " (YAML reads 1e-3 as text: write 1.0e-3)"
    return ""


def _parse_section(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise ParamsError(f"{where}: expected a section with keys, found {value!r}")
    fields = typing.get_type_hints(kind, include_extras=True)
    for key in value:
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(fields)}"
            raise ParamsError(f"{where}: unknown key {key!r}; {hint}")
    for key in fields:
        if key not in value:
            raise ParamsError(f"{where}: key {key!r} is missing (expected {_name(fields[key])})")
    return kind(**{key: parse(fields[key], value[key], where=f"{where}: {key}") for key in fields})


def _name(kind: Any) -> str:
    if typing.get_origin(kind) is Annotated:
        return _name(typing.get_args(kind)[0])
    return kind.__name__ if isinstance(kind, type) else str(kind).replace("typing.", "")


def flatten(section: Any, prefix: str = "") -> dict[str, Any]:
    """A section as a flat mapping of dotted keys to plain values, for tracking and digests."""
    flat: dict[str, Any] = {}
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        if dataclasses.is_dataclass(value):
            flat |= flatten(value, f"{prefix}{field.name}.")
        else:
            flat[f"{prefix}{field.name}"] = list(value) if isinstance(value, tuple) else value
    return flat
