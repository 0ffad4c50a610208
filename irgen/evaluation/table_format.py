"""Render tables of text cells for a terminal and for Markdown."""

from collections.abc import Collection, Sequence

from tabulate import tabulate


def render_text(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[str] = ()
) -> str:
    r"""Return an aligned table for a terminal; the columns named in ``right`` align right.

    Characters that would break a line or cannot be printed appear as escapes.

    >>> print(render_text(["id", "score"], [["a\ncat", "0.5"], ["猫", "−1"]], right=["score"]))
    id        score
    ------  -------
    a\ncat      0.5
    猫           −1
    """
    return _render(columns, [[escape(cell) for cell in row] for row in rows], right, "simple")


def render_markdown(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[str] = ()
) -> str:
    r"""Return a table in GitHub's Markdown; the columns named in ``right`` align right.

    >>> print(render_markdown(["id", "score"], [["a|b", "0.5"]], right=["score"]))
    | id   |   score |
    |:-----|--------:|
    | a\|b |     0.5 |
    """
    cells = [[escape(cell).replace("|", r"\|") for cell in row] for row in rows]
    return _render(columns, cells, right, "pipe")


def escape(text: str) -> str:
    r"""Return ``text`` with escapes for characters that cannot be printed.

    >>> escape("a cat\n")
    'a cat\\n'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _render(
    columns: Sequence[str], rows: list[list[str]], right: Collection[str], style: str
) -> str:
    sides = ["right" if name in right else "left" for name in columns]
    table = tabulate(rows, columns, style, colalign=sides, disable_numparse=True)
    return "\n".join(line.rstrip() for line in table.splitlines())
