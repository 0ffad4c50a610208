"""Write the figures of benchmarks/serve.py as Markdown."""

import os
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

from irgen.evaluation.latency import name_processor
from irgen.files.workspace import git

GIB = 2**30
UNITS = {  # of the figures of a change, as the table names them
    "seconds": "seconds",
    "rate": "a second",
    "p50": "p50 ms",
    "p99": "p99 ms",
    "failures": "failed",
}


def describe_machine(load: float) -> dict[str, Any]:
    """Return the cores, the processor, the commit, and the machine's ``load`` before."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": name_processor(torch.device("cpu")),
        "commit": git(Path(__file__).parent, "rev-parse", "--short", "HEAD") or "unknown",
        "load": round(load, 2),
    }


def format_page(results: dict[str, Any]) -> str:
    """Return a section for each measurement in the results."""
    parts = []
    for name, (title, format_rows) in SECTIONS.items():
        if name in results:
            result = results[name]
            parts += [f"### {title}\n", format_rows(result["measured"]), "", _describe(result)]
    return "\n".join(parts)


def _describe(result: dict[str, Any]) -> str:
    return (
        f"{result['cores']} cores ({result['processor']}), load of the machine before "
        f"{result['load']:g}, commit {result['commit']}.\n"
    )


def _format_table(rows: list[list[Any]], headers: tuple[str, ...]) -> str:
    cells = [[_format_number(value) for value in row] for row in rows]
    right = ("right" if isinstance(value, int | float) else "left" for value in rows[0])
    return tabulate(cells, headers, tablefmt="github", disable_numparse=True, colalign=tuple(right))


def _format_number(value: Any) -> str:
    """Return a number with three digits at least, or a text as it is.

    >>> _format_number(1234), _format_number(1234.5), _format_number(1.234), _format_number("a")
    ('1,234', '1,234', '1.23', 'a')
    """
    if not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) else str(value)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _format_start(rows: list[dict[str, float]]) -> str:
    table = [
        [
            *(row["images"], row["ready"], 1000 * row["first"]),
            *(row["memory"] / GIB, row["disk"] / GIB),
        ]
        for row in rows
    ]
    headers = ("images", "ready s", "first search ms", "memory GiB", "disk GiB")
    return _format_table(table, headers)


def _format_overhead(row: dict[str, float]) -> str:
    names = ("whole", "decode", "queue", "search", "overhead", "overhead/p99")
    headers = ("whole", "decode", "wait", "encode and search", "the rest", "the rest, p99")
    return f"Median ms of a request.\n\n{_format_table([[row[n] for n in names]], headers)}"


def _format_batching(rows: list[dict[str, float]]) -> str:
    names = ("batch", "rate", "p50", "p99", "requests", "failures", "refused")
    headers = ("batch", "requests/s", "p50 ms", "p99 ms", "requests", "failed", "refused")
    rates = {row["batch"]: 0.0 for row in rows}
    for row in rows:
        rates[row["batch"]] += row["rate"]
    ratio = rates[max(rates)] / rates[min(rates)]
    table = _format_table([[row[name] for name in names] for row in rows], headers)
    return f"With batches, **{ratio:.1f} times** as many requests a second.\n\n{table}"


def _format_load(result: dict[str, Any]) -> str:
    searches, changes, memory = (result[name] for name in ("searches", "changes", "memory"))
    grown = memory["end"] / memory["before"] - 1
    rows = [
        ["searches a second", searches["rate"]],
        ["p50 ms", searches["p50"]],
        ["p99 ms", searches["p99"]],
        ["p99 / p50", searches["p99"] / searches["p50"]],
        ["searches", searches["requests"]],
        ["failed", searches["failures"]],
        ["refused (429)", searches["refused"]],
        *(
            [f"{name}: {UNITS[key]}", row[key]]
            for name, row in changes.items()
            for key in UNITS
            if key in row
        ),
        ["memory before, GiB", memory["before"] / GIB],
        ["memory at the end, GiB", memory["end"] / GIB],
        ["grown by, %", 100 * grown],
        ["most memory, GiB", memory["most"] / GIB],
    ]
    heading = (
        f"{result['images']:,} images; {result['users']} clients, each of which searches again as "
        f"soon as it has its answer, for {result['seconds']:.0f} s."
    )
    return f"{heading}\n\n{_format_table(rows, ('figure', 'measured'))}"


SECTIONS = {
    "start": ("Start", _format_start),
    "overhead": ("One client", _format_overhead),
    "batching": ("Batches", _format_batching),
    "load": ("Many clients, and changes meanwhile", _format_load),
}
