"""A comparison's tables as text: for GitHub and for a paper."""

from collections.abc import Callable

from irgen.study.tables import BETTER, WORSE, Table


def seeds_in_words(seeds: tuple[int, ...]) -> str:
    """Seeds in a cell.

    >>> seeds_in_words((0, 1, 2)), seeds_in_words((0, 2)), seeds_in_words((1,))
    ('0–2', '0, 2', '1')
    """
    if len(seeds) > 2 and seeds == tuple(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]}–{seeds[-1]}"
    return ", ".join(map(str, seeds))


def markdown(table: Table) -> str:
    """The table in GitHub's markdown, its heading above and what is to be known below."""
    head = ["", *table.columns, "seeds"]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    for row in table.rows:
        cells = [
            _bold(cell.text, cell.best) + (f" {cell.mark}" if cell.mark else "")
            for cell in row.cells
        ]
        lines.append([row.title, *cells, seeds_in_words(row.seeds)])
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"### {table.title}\n\n{body}\n\n{table.about}\n"


def _bold(text: str, best: bool) -> str:
    return f"**{text}**" if best else text


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


def latex(table: Table) -> str:
    """The table for a paper (packages booktabs and amssymb)."""

    def plain(text: str) -> str:
        return "".join(LATEX.get(sign, sign) for sign in text)

    lines = [" & ".join(["", *map(plain, table.columns), "seeds"]) + r" \\", r"\midrule"]
    for row in table.rows:
        cells = []
        for cell in row.cells:
            text = rf"\textbf{{{plain(cell.text)}}}" if cell.best else plain(cell.text)
            cells.append(f"{text} {plain(cell.mark)}".strip())
        cells = [plain(row.title), *cells, plain(seeds_in_words(row.seeds))]
        lines.append(" & ".join(cells) + r" \\")
    body = "\n".join(lines)
    kinds = "l" + "r" * (len(table.columns) + 1)
    return (
        f"\\begin{{table}}\n\\centering\\small\n\\begin{{tabular}}{{{kinds}}}\n\\toprule\n{body}\n"
        f"\\bottomrule\n\\end{{tabular}}\n\\caption{{{plain(table.title)}. {plain(table.about)}}}\n"
        f"\\label{{tab:{table.name}}}\n\\end{{table}}\n"
    )


FORMS: dict[str, Callable[[Table], str]] = {"md": markdown, "tex": latex}
