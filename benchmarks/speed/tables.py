"""Rows of numbers as markdown, never rounded in our favour."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; a column whose cells all begin with a digit, a sign or a dash is set to the right.

    >>> print(markdown(["a", "b"], [["x", "1"]]))
    | a | b |
    | --- | ---: |
    | x | 1 |
    """
    numeric = [
        all(row[i][:1].isdigit() or row[i][:1] in "–−-~" for row in rows) for i in range(len(heads))
    ]
    rule = ["---:" if right else "---" for right in numeric]
    return "\n".join(f"| {' | '.join(line)} |" for line in (heads, rule, *rows))


def number(value: float | None) -> str:
    """Three digits that matter; – for what was not measured.

    >>> number(0.01234), number(123.4), number(12345.6), number(None)
    ('0.0123', '123', '12,346', '–')
    """
    if value is None:
        return "–"
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(digits, 4)}f}"


def unflattering(value: float, more_is_better: bool) -> str:
    """Three digits that matter, cut off rather than rounded, towards what is worse.

    >>> unflattering(19.999, more_is_better=True), unflattering(0.5001, more_is_better=False)
    ('19.9', '0.501')
    """
    if not math.isfinite(value) or value == 0:
        return f"{value:g}"
    digits = 2 - math.floor(math.log10(abs(value)))
    scale = 10.0**digits
    cut = math.floor(value * scale) if more_is_better else math.ceil(value * scale)
    return f"{cut / scale:,.{max(0, digits)}f}"


def share(value: float) -> str:
    """Per cent, one digit."""
    return f"{100 * value:.1f} %"
