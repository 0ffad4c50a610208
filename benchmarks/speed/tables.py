"""Format numbers and Markdown tables; a number beside a target is rounded to the worse side."""

import math
from collections.abc import Sequence


def render_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table. A column is right-aligned if all its cells begin with a digit, a sign or a
    dash.

    >>> print(render_table(["a", "b"], [["x", "1"]]))
    | a | b |
    | --- | ---: |
    | x | 1 |
    """
    numeric = [
        all(row[i][:1].isdigit() or row[i][:1] in "–−-~" for row in rows) for i in range(len(heads))
    ]
    rule = ["---:" if right else "---" for right in numeric]
    return "\n".join(f"| {' | '.join(line)} |" for line in (heads, rule, *rows))


def format_number(value: float | None) -> str:
    """Format a number with three significant digits; None, for a missing figure, as –.

    >>> format_number(0.01234), format_number(12345.6), format_number(None)
    ('0.0123', '12,346', '–')
    """
    if value is None:
        return "–"
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(digits, 4)}f}"


def format_cautiously(value: float, more_is_better: bool) -> str:
    """Format a number with three significant digits, rounded to the worse side.

    >>> format_cautiously(19.999, more_is_better=True)
    '19.9'
    >>> format_cautiously(0.5001, more_is_better=False)
    '0.501'
    """
    if not math.isfinite(value) or value == 0:
        return f"{value:g}"
    digits = 2 - math.floor(math.log10(abs(value)))
    scale = 10.0**digits
    cut = math.floor(value * scale) if more_is_better else math.ceil(value * scale)
    return f"{cut / scale:,.{max(0, digits)}f}"


def format_share(value: float) -> str:
    """Format a share as per cent with one decimal."""
    return f"{100 * value:.1f} %"
