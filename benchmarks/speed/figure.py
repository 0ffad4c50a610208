"""Plot the milliseconds a query takes over the size of the database."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from irgen.files.atomic import atomic

COLOURS = ("#0072b2", "#56b4e9", "#d55e00", "#e69f00", "#009e73", "#cc79a7", "#7f7f7f")
INK = "#24292f"


def save(results: dict[str, Any], folder: Path) -> None:
    """Write index.svg and index.png: ms a query over the number of images, for batches of 64 and
    for single queries."""
    figure = Figure(figsize=(10.5, 4.2), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, batch in zip(panels, (64, 1), strict=True):
        for i, (name, line) in enumerate(_lines(results, batch).items()):
            sizes, values = zip(*sorted(line.items()), strict=True)
            axes.plot(sizes, values, color=COLOURS[i], marker="o", ms=4, lw=1.8, label=name)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("images in the database")
        axes.set_title(
            "one query at a time" if batch == 1 else f"queries in batches of {batch}",
            loc="left",
            color=INK,
        )
        axes.grid(axis="y", color="#b8bec6", lw=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("ms a query (median)")
    handles, labels = panels[1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False)
    for suffix in ("svg", "png"):
        with atomic(folder / f"index.{suffix}") as temporary:
            figure.savefig(temporary, format=suffix, dpi=150)


def _lines(results: dict[str, Any], batch: int) -> dict[str, dict[int, float]]:
    """Return ms a query by name and by size."""
    lines: dict[str, dict[int, float]] = {}
    for row in results["search"]:
        if row["batch"] == batch and row["beams"] in (10, 30) and row["precision"] == "fp32":
            name = f"generative, fp32, beam {row['beams']}"
            lines.setdefault(name, {})[row["size"]] = row["p50"]
    for row in results["others"]:
        if row["batch"] == batch:
            name = row["method"].split(" (")[0] if "lists" in row["method"] else row["method"]
            lines.setdefault(name, {})[row["size"]] = row["p50"]
    if batch == 1:
        for row in results["published"]:
            if row["beams"] == 30:
                total = row["writing"] + row["looking_up"]
                lines.setdefault("published search, beam 30", {})[row["size"]] = total
    return lines
