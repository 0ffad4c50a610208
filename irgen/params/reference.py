"""List all settings, for ``irgen params`` and the reference in the docs."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from irgen.params import Params


@dataclass(frozen=True)
class Setting:
    """One setting: its dotted name, its default as YAML writes it, what is allowed, its meaning."""

    name: str
    default: str
    allowed: str
    description: str


def list_settings() -> list[Setting]:
    """Return every setting, section by section."""
    schema = TypeAdapter(Params).json_schema()
    return list(_walk(schema["properties"], schema["$defs"], ""))


def _walk(properties: dict[str, Any], sections: dict[str, Any], prefix: str) -> Iterator[Setting]:
    for key, schema in properties.items():
        if "$ref" in schema:
            section = sections[schema["$ref"].rsplit("/", 1)[1]]
            yield from _walk(section["properties"], sections, f"{prefix}{key}.")
        else:
            default = json.dumps(schema["default"]) if "default" in schema else "must be given"
            yield Setting(prefix + key, default, _allowed(schema), schema.get("description", ""))


def _allowed(schema: dict[str, Any]) -> str:
    """Return the type and range of a value.

    >>> _allowed({"type": "integer", "minimum": 1}), _allowed({"enum": ["a", "b"]})
    ('integer, at least 1', 'a, b')
    """
    if "anyOf" in schema:
        return ", ".join(map(_allowed, schema["anyOf"]))
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"]))
    if schema["type"] == "array":
        return f"list of {_allowed(schema['items'])}"
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is None:
        return str(schema["type"])
    return f"{schema['type']}, " + (f"at least {low:g}" if high is None else f"{low:g} to {high:g}")
