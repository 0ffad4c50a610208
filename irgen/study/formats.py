"""Render a comparison's tables as Markdown and as LaTeX."""

from collections.abc import Callable

from tabulate import tabulate

from irgen.evaluation.table_format import render_markdown
from irgen.study.tables import BETTER, WORSE, Cell, Table

LATEX = {
    "&": r"\&",
    "%": r"\%",
    "_": r"\_",
    "#": r"\#",
    "±": r"$\pm$",
    "–": "--",
    "≥": r"$\geq$",
    "λ": r"$\lambda$",
    "×": r"$\times$",
    "“": "``",
    "”": "''",
    "ö": r"\"o",
    "<": r"$<$",
    BETTER: r"$\blacktriangle$",
    WORSE: r"$\blacktriangledown$",
}


def format_seeds(seeds: tuple[int, ...]) -> str:
    """Return seeds as a cell.

    >>> format_seeds((0, 1, 2)), format_seeds((0, 2)), format_seeds((1,))
    ('0–2', '0, 2', '1')
    """
    if len(seeds) > 2 and seeds == tuple(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]}–{seeds[-1]}"
    return ", ".join(map(str, seeds))


def to_markdown(table: Table) -> str:
    """Return the table in GitHub's Markdown, between its heading and its note."""
    rows = _format_rows(table, "**{}**".format, str)
    text = render_markdown(_columns(table), rows, right=_columns(table)[1:])
    return f"### {table.title}\n\n{text}\n\n{table.note}\n"


def to_latex(table: Table) -> str:
    """Return the table for a paper (it needs the package amssymb)."""
    columns = [_escape(column) for column in _columns(table)]
    rows = _format_rows(table, r"\textbf{{{}}}".format, _escape)
    sides = ["left", *["right"] * (len(columns) - 1)]
    text = tabulate(rows, columns, "latex_raw", colalign=sides, disable_numparse=True)
    return (
        f"\\begin{{table}}\n\\centering\\small\n{text}\n"
        f"\\caption{{{_escape(table.title)}. {_escape(table.note)}}}\n"
        f"\\label{{tab:{table.name}}}\n\\end{{table}}\n"
    )


def _columns(table: Table) -> list[str]:
    return ["", *table.columns, "seeds"]


def _format_rows(
    table: Table, embolden: Callable[[str], str], escape: Callable[[str], str]
) -> list[list[str]]:
    def format_cell(cell: Cell) -> str:
        text = escape(cell.text)
        return f"{embolden(text) if cell.best else text} {escape(cell.mark)}".strip()

    return [
        [escape(row.title), *map(format_cell, row.cells), escape(format_seeds(row.seeds))]
        for row in table.rows
    ]


def _escape(text: str) -> str:
    return "".join(LATEX.get(character, character) for character in text)


FORMATS: dict[str, Callable[[Table], str]] = {"md": to_markdown, "tex": to_latex}
