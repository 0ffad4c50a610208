"""Measure how the stages grow with the catalogue: time, memory and disk.

    python benchmarks/scale.py --rows 10000 100000 1000000

Runs the stages over made-up catalogues of so many images, each stage in a process of its own.
``benchmarks/scale_stages.py`` says what is made up. Writes table and numbers to
``benchmarks/results/scale.*``, and the plot to ``docs/assets/scale.png``; sizes that were measured
before stay in them. Run it on a machine that does nothing else. A million images take 8 GB below
``--root``, which are deleted in the end.
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
from matplotlib.figure import Figure
from scale_stages import PREPARED, STAGES

from irgen.evaluation.latency import name_processor
from irgen.evaluation.table_format import render_markdown
from irgen.files.atomic import atomic, write_bytes
from irgen.files.records import read_json, write_json

HERE = Path(__file__).parent
COLOURS = (
    *("#0072b2", "#56b4e9", "#d55e00", "#e69f00", "#009e73"),
    *("#cc79a7", "#7f7f7f", "#000000", "#a0522d"),
)
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


def render(results: list[Row]) -> str:
    """Return the table: a stage a row, sizes side by side."""
    sizes = sorted({row["rows"] for row in results})
    ahead = f"s, {AHEAD * sizes[-1]:,} (extrapolated)"
    columns = [
        "stage",
        *(f"s, {size:,}" for size in sizes),
        *(f"slope to {size:,}" for size in sizes[1:]),
        *([ahead] if len(sizes) > 1 else []),
        *(f"peak GB, {size:,}" for size in sizes),
        "bytes/image on disk",
        "recall",
    ]
    rows = []
    for name in STAGES:
        by_size = [row for row in results if row["stage"] == name]
        by_size.sort(key=lambda row: row["rows"])
        if len(by_size) != len(sizes):
            continue
        steps = list(pairwise(by_size))
        rows.append(
            [
                name,
                *(f"{row['seconds']:.1f}" for row in by_size),
                *(f"{fit_slope(*step):.2f}" for step in steps),
                *([f"{extrapolate(*steps[-1]):,.0f}"] if steps else []),
                *(f"{row['peak_bytes'] / 1e9:.1f}" for row in by_size),
                f"{by_size[-1]['disk_bytes'] / sizes[-1]:,.0f}",
                "" if (recall := by_size[-1]["recall"]) is None else f"{recall:.3f}",
            ]
        )
    return render_markdown(columns, rows, right=columns[1:])


def plot(results: list[Row]) -> Figure:
    """Plot seconds over images, a line a stage; dashed where they are extrapolated."""
    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    axes = figure.subplots()
    for number, name in enumerate(STAGES):
        by_size = [row for row in results if row["stage"] == name]
        by_size.sort(key=lambda row: row["rows"])
        sizes, seconds = [row["rows"] for row in by_size], [row["seconds"] for row in by_size]
        style = {"color": COLOURS[number % len(COLOURS)], "lw": 1.6}
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
    parser.add_argument("--root", type=Path, help="where the catalogues lie for a while")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--plot", type=Path, default=HERE.parent / "docs/assets/scale.png")
    arguments = parser.parse_args()
    if arguments.root is not None:
        arguments.root.mkdir(parents=True, exist_ok=True)
    path, processor = arguments.results / "scale.json", name_processor(torch.device("cpu"))
    older = read_json(path)["stages"] if path.exists() else []
    results = [row for row in older if row["rows"] not in arguments.rows]
    for rows in arguments.rows:
        folder = Path(tempfile.mkdtemp(prefix="scale-", dir=arguments.root))
        try:
            results += measure(rows, folder, list(STAGES))
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
