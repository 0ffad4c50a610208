"""Build the table of gains: what the served index adds to other searches of the same embeddings."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from irgen.evaluation.table_format import render_markdown
from irgen.files.atomic import write_bytes
from irgen.files.records import read_json
from irgen.report.comparison import TITLES
from irgen.study import results, significance
from irgen.study.plan import TABLES
from irgen.study.results import MethodResults, Result
from irgen.study.tables import BRUTE_FORCE, HIT, INDEX, TESTED, Cell, Row, Table, choose_mark

CLASSIFIED = "classify_then_search"
OTHERS = (BRUTE_FORCE, CLASSIFIED)
COLUMNS = (*TESTED, HIT)
NAME = "gains"
NOTE = (
    "Metrics of the served index less those of the row, with the interval that holds 95 % of the "
    "differences of other queries and other trainings: a paired bootstrap over queries and seeds. "
    "▲ ▼: the interval is above or below 0, so the index is better or worse."
)


def build_gains(standard: list[Result]) -> list[Table]:
    """Return the table of gains in the standard variant's results; none if they have no index."""
    rows = [
        Row(
            title=TITLES[method],
            cells=tuple(measure_gain(standard, method, column.key) for column in COLUMNS),
            seeds=tuple(result.trial.seed for result in standard),
        )
        for method in OTHERS
    ]
    rows = [row for row in rows if any(cell.value for cell in row.cells)]
    if not rows:
        return []
    columns = tuple(column.title for column in COLUMNS)
    title = "What the served index gains"
    return [Table(name=NAME, title=title, columns=columns, rows=tuple(rows), note=NOTE)]


def measure_gain(measured: list[Result], method: str, key: str) -> Cell:
    """Return how much higher a metric of the served index is than that of ``method``; “–” if one of
    them was not measured."""
    differences = results.subtract(
        MethodResults(INDEX, measured), MethodResults(method, measured), key
    )
    if differences is None or not differences.size:
        return Cell(text="–")
    gain = results.spread(np.nanmean(differences, axis=1).tolist())
    means = significance.resample(differences)
    low, high = significance.interval(means)
    p = significance.p_value(means)
    return Cell(
        text=f"{gain.mean:+.3f} ({low:+.3f} to {high:+.3f})",
        mark=choose_mark(p, gain.mean),
        value=gain,
        p=p,
    )


def write_summary(root: Path, sets: Iterable[str]) -> str:
    """Write ``experiments/tables/gains.md``: the gains of all sets that have tables, side by side.
    Return its text."""
    rows = []
    for name in sets:
        path = root / TABLES / name / "comparison.json"
        tables = read_json(path) if path.is_file() else []
        for row in [row for table in tables if table["name"] == NAME for row in table["rows"]]:
            cells = [f"{cell['text']} {cell['mark']}".strip() for cell in row["cells"]]
            rows.append([name, row["title"], *cells])
    columns = ["set", "beside", *(column.title for column in COLUMNS)]
    text = f"{render_markdown(columns, rows, right=columns[2:])}\n\n{NOTE}\n"
    write_bytes(root / TABLES / "gains.md", text.encode())
    return text
