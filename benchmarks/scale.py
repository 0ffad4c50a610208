"""Measure how the stages grow with the catalogue: time, memory and disk.

    python benchmarks/scale.py --rows 10000 100000 1000000
    python benchmarks/scale.py --rows 10000000 --stages trie index search

Runs the stages over made-up catalogues of so many images, each stage in a process of its own.
``benchmarks/scale_stages.py`` says what is made up. Writes table and numbers to
``benchmarks/results/scale.*``, and the plot to ``docs/assets/scale.png``; what was measured before
stays in them. Run it on a machine that does nothing else. A million images take 8 GB below
``--root``, ten million with made-up codes 12 GB; they are deleted in the end.
"""

import argparse
import json
import math
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from scale_stages import PREPARED, STAGES

from irgen.evaluation.latency import name_processor
from irgen.evaluation.table_format import render_markdown
from irgen.files.atomic import atomic, write_bytes
from irgen.files.records import read_json, write_json

HERE = Path(__file__).parent
AHEAD = 10  # times the largest size, to which time is extrapolated

Row = dict[str, Any]  # what ``scale_stages.measure`` returns


def measure(rows: int, folder: Path, names: Sequence[str]) -> list[Row]:
    """Run the stages ``names`` over ``rows`` images below ``folder``; return what each took."""
    results = []
    for name in names:
        if name in PREPARED:
            run_stage(name, rows, folder, "--prepare")
        results.append(json.loads(run_stage(name, rows, folder).splitlines()[-1]))
        print(f"{name}, {rows:,} images: {results[-1]['seconds']:.1f} s", flush=True)
    return results


def run_stage(name: str, rows: int, folder: Path, *options: str) -> str:
    """Run a stage in a process of its own, and return what it printed."""
    command = [sys.executable, str(HERE / "scale_stages.py"), name, "--rows", str(rows)]
    command += ["--root", str(folder), *options]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def fit_slope(first: Row, last: Row) -> float:
    """Return the exponent of the growth of time from one size to the next: 1 is proportional.

    >>> round(fit_slope({"rows": 10, "seconds": 2}, {"rows": 100, "seconds": 200}), 3)
    2.0
    """
    return math.log(last["seconds"] / first["seconds"]) / math.log(last["rows"] / first["rows"])


def extrapolate(first: Row, last: Row) -> float:
    """Return the seconds of AHEAD × as many rows, if time goes on growing as it last did, but at
    least in proportion."""
    return last["seconds"] * AHEAD ** max(1, fit_slope(first, last))


def select(results: list[Row], name: str) -> dict[int, Row]:
    """Return the results of a stage by size, ascending."""
    rows = sorted((row for row in results if row["stage"] == name), key=lambda row: row["rows"])
    return {row["rows"]: row for row in rows}


def render(results: list[Row]) -> str:
    """Return the table: a stage a row, sizes side by side; blank where a size was not measured."""
    sizes = sorted({row["rows"] for row in results})
    largest = max(min(max(select(results, row["stage"])) for row in results), sizes[0])
    columns = [
        "stage",
        *(f"s, {size:,}" for size in sizes),
        *(f"slope to {size:,}" for size in sizes[1:]),
        *([f"s, {AHEAD * largest:,} (extrapolated)"] if len(sizes) > 1 else []),
        *(f"peak GB, {size:,}" for size in sizes),
        "bytes/image on disk",
        "recall",
        "ms a query, alone and in batches",
    ]
    rows = []
    for name in STAGES:
        by_size = select(results, name)
        if not by_size:
            continue
        last = by_size[max(by_size)]
        rows.append(
            [
                name,
                *(f"{by_size[size]['seconds']:.1f}" if size in by_size else "" for size in sizes),
                *(render_slope(by_size, *step) for step in pairwise(sizes)),
                *([render_ahead(by_size, largest)] if len(sizes) > 1 else []),
                *(
                    f"{by_size[size]['peak_bytes'] / 1e9:.1f}" if size in by_size else ""
                    for size in sizes
                ),
                f"{last['disk_bytes'] / last['rows']:,.0f}",
                "" if (recall := last["recall"]) is None else f"{recall:.3f}",
                f"{last['single_ms']:.1f}, {last['batch_ms']:.2f}" if last.get("single_ms") else "",
            ]
        )
    return render_markdown(columns, rows, right=columns[1:])


def render_slope(by_size: dict[int, Row], first: int, last: int) -> str:
    """Return the slope from one size to the next; blank if one of them was not measured."""
    if first not in by_size or last not in by_size:
        return ""
    return f"{fit_slope(by_size[first], by_size[last]):.2f}"


def render_ahead(by_size: dict[int, Row], largest: int) -> str:
    """Return the seconds of AHEAD × ``largest`` rows, extrapolated; blank if they were measured, or
    if fewer than two sizes up to ``largest`` were."""
    measured = [row for size, row in by_size.items() if size <= largest]
    if AHEAD * largest in by_size or len(measured) < 2:
        return ""
    return f"{extrapolate(*measured[-2:]):,.0f}"


def plot(results: list[Row]) -> Figure:
    """Plot seconds over images, a line a stage; dashed where they are extrapolated."""
    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    axes, colours = figure.subplots(), colormaps["tab20"]
    for number, name in enumerate(STAGES):
        by_size = list(select(results, name).values())
        sizes, seconds = [row["rows"] for row in by_size], [row["seconds"] for row in by_size]
        style = {"color": colours(number), "lw": 1.6}
        axes.plot(sizes, seconds, marker="o", ms=4, label=name, **style)
        if len(by_size) > 1:
            further = [seconds[-1], extrapolate(*by_size[-2:])]
            axes.plot([sizes[-1], AHEAD * sizes[-1]], further, linestyle="--", **style)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("images (dashed: extrapolated)")
    axes.set_ylabel("seconds")
    axes.grid(color="#b8bec6", lw=0.5)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right center", frameon=False)
    return figure


def main() -> None:
    """Measure, print the table, and write table, plot and numbers."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--root", type=Path, help="where the catalogues lie for a while")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--plot", type=Path, default=HERE.parent / "docs/assets/scale.png")
    arguments = parser.parse_args()
    if arguments.root is not None:
        arguments.root.mkdir(parents=True, exist_ok=True)
    path, processor = arguments.results / "scale.json", name_processor(torch.device("cpu"))
    older = read_json(path)["stages"] if path.exists() else []
    measured = {(rows, name) for rows in arguments.rows for name in arguments.stages}
    results = [row for row in older if (row["rows"], row["stage"]) not in measured]
    for rows in arguments.rows:
        folder = Path(tempfile.mkdtemp(prefix="scale-", dir=arguments.root))
        try:
            results += measure(rows, folder, arguments.stages)
        finally:
            shutil.rmtree(folder)
        write_json(path, {"processor": processor, "stages": results})
    table = render(results)
    print(table)
    write_bytes(path.with_suffix(".md"), f"{table}\n".encode())
    with atomic(arguments.plot) as temporary:
        plot(results).savefig(temporary, format="png", dpi=150)


if __name__ == "__main__":
    main()
