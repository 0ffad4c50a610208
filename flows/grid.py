"""A grid of parameters: its points, as ``dvc exp run`` takes them and as people read them."""

import difflib
import itertools
from pathlib import Path
from typing import Any

import yaml

from flows.pages import TELLING
from irgen.errors import ParamsError

Point = dict[str, Any]


def points(parameters: dict[str, list[Any]], path: Path) -> list[Point]:
    """Every combination of values, the last key's changing fastest.

    Raises ParamsError for a key that ``path`` does not have, and for a grid without a point.
    """
    known = _keys(yaml.safe_load(path.read_text(encoding="utf-8")))
    for key, values in parameters.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"{path.name} has no such key"
            raise ParamsError(f"compare: parameters: unknown key {key!r}; {hint}")
        if not values:
            raise ParamsError(f"compare: parameters: {key}: give at least one value")
    if not parameters:
        raise ParamsError(
            "compare: parameters: give keys of params.yaml with values to try, such as "
            '{"tokenizer.levels": [2, 3]}'
        )
    return [
        dict(zip(parameters, values, strict=True))
        for values in itertools.product(*parameters.values())
    ]


def _keys(tree: dict[str, Any], prefix: str = "") -> list[str]:
    found = []
    for key, value in tree.items():
        found.append(f"{prefix}{key}")
        if isinstance(value, dict):
            found += _keys(value, f"{prefix}{key}.")
    return found


def settings(point: Point) -> list[str]:
    """A point as options of ``dvc exp run``.

    >>> settings({"tokenizer.levels": 3, "pairs.rule": "near"})
    ['-S', 'tokenizer.levels=3', '-S', 'pairs.rule=near']
    """
    return [word for key, value in point.items() for word in ("-S", f"{key}={_plain(value)}")]


def _plain(value: Any) -> str:
    if value is None or isinstance(value, (bool, list, dict)):
        return yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n").strip()
    return str(value)


def told(point: Point) -> str:
    """A point in words.

    >>> told({"tokenizer.levels": 3, "pairs.rule": "near"})
    'tokenizer.levels=3 pairs.rule=near'
    """
    return " ".join(settings(point)[1::2])


def telling(metrics: dict[str, float]) -> dict[str, float]:
    """The metrics to tell points apart by.

    >>> telling({"generative/precision/10": 0.98765, "generative/latency": 2.0})
    {'generative/precision/10': 0.9877}
    """
    return {key: round(value, 4) for key, value in metrics.items() if key.endswith(TELLING)}
