"""Draw the figures of the report as SVG, the same bytes for the same numbers. Only this file
imports matplotlib.

To add a figure to the report: write a function here and name it in ``stages/report.py``. Without
pyplot there is no global state. Colours are Okabe and Ito's, which colour-blind readers can
distinguish. Each line has its name at its end. A page may replace the colour of text, INK.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from irgen.search.calibration import Bin

INK = "#24292f"
GRID = "#b8bec6"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7f7f7f")
STILL = 0.001  # a line whose values differ by a smaller share of them does not move
STYLE: Any = {  # matplotlib's settings, while a figure is drawn
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Arial", "Helvetica"],
    "font.size": 10.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


@dataclass(frozen=True, kw_only=True)
class Line:
    name: str
    x: Sequence[float]
    y: Sequence[float]
    dashed: bool = False


@dataclass(frozen=True, kw_only=True)
class Plot:
    """``share``: y is a share, shown in per cent; ``floor``: the lowest y shown, if any."""

    title: str
    x: str
    share: bool = False
    floor: float | None = None


def lines(plot: Plot, series: Sequence[Line]) -> bytes | None:
    """Draw a line chart with each line's name at its end. Lines without a finite point are left
    out. None if no line moves: such a chart shows nothing."""
    drawn = [finite for line in series if len((finite := _finite(line)).x)]
    if not any(max(line.y) - min(line.y) > STILL * max(map(abs, line.y)) for line in drawn):
        return None
    with matplotlib.rc_context(STYLE):
        figure, axes = _create_plot(plot)
        for i, line in enumerate(drawn):
            dashes = (0, (4, 2)) if line.dashed else "solid"
            marker = "o" if len(line.x) == 1 else None
            axes.plot(
                line.x, line.y, COLOURS[i % len(COLOURS)], ls=dashes, marker=marker, lw=1.8, ms=4
            )
        if plot.floor is not None:
            axes.set_ylim(bottom=plot.floor)
        _name_at_ends(axes, drawn)
        return _svg(figure, plot.title)


def bars(plot: Plot, names: Sequence[str], heights: Sequence[float]) -> bytes:
    """Draw a bar chart with each bar's height on top of it."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _create_plot(plot)
        positions = range(len(names))
        rectangles = axes.bar(positions, heights, color=COLOURS[0], width=0.75)
        axes.bar_label(rectangles, fmt="{:,.0f}", padding=2, fontsize=9)
        axes.set_xticks(positions, names)
        axes.margins(y=0.12)
        return _svg(figure, plot.title)


def scatter(plot: Plot, points: Sequence[Line]) -> bytes:
    """Draw named points over a logarithmic x; each line has one point. Points without a finite y
    and a finite x above 0 are left out."""
    drawn = [point for point in map(_finite, points) if len(point.x) and point.x[0] > 0]
    with matplotlib.rc_context(STYLE):
        figure, axes = _create_plot(plot)
        axes.set_xscale("log")
        for i, point in enumerate(drawn):
            axes.plot(point.x, point.y, COLOURS[i % len(COLOURS)], marker="o", ls="none", ms=6)
        axes.margins(x=0.12, y=0.1)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=8))
        axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
        axes.xaxis.set_minor_locator(NullLocator())
        _name_at_ends(axes, drawn, joined=True)
        return _svg(figure, plot.title)


def codes_used(names: Sequence[str], levels: Sequence[Sequence[float]]) -> bytes | None:
    """Draw how many codes each level uses, a line for each rule of identifiers."""
    series = [
        Line(name=name, x=range(1, len(counts) + 1), y=counts)
        for name, counts in zip(names, levels, strict=True)
    ]
    return lines(Plot(title="codes used at each level", x="level", floor=0), series)


def losses(history: pl.DataFrame, model: str) -> bytes | None:
    """Draw every loss of a training history over its steps."""
    series = _columns(history, "loss", {"loss": "total"})
    return lines(Plot(title=f"{model}: losses", x="step", floor=0), series)


def accuracies(history: pl.DataFrame, model: str) -> bytes | None:
    """Draw training accuracies (solid) and validation accuracies (dashed) over the steps."""
    training = _columns(history, "accuracy", {})
    validation = _columns(history, "validation/accuracy", {}, dashed=True)
    if len(validation) > 1:  # keep the embedding and the longest prefix
        validation = [validation[0], validation[-1]]
    plot = Plot(title=f"{model}: accuracy", x="step", share=True)
    return lines(plot, [*training, *validation])


def codebook_use(history: pl.DataFrame, codebook: int) -> bytes | None:
    """Draw the share of the L codes in use at each level, over the steps."""
    counts = _columns(history, "codes_used", {})
    shares = [Line(name=f.name, x=f.x, y=[y / codebook for y in f.y]) for f in counts]
    plot = Plot(title=f"tokenizer: codes used of {codebook}", x="step", share=True, floor=0)
    return lines(plot, shares)


def perplexities(history: pl.DataFrame) -> bytes | None:
    """Draw the perplexity of each level's codes over the steps."""
    plot = Plot(title="tokenizer: perplexity of each level", x="step", floor=0)
    return lines(plot, _columns(history, "perplexity", {}))


def validation_precision(history: pl.DataFrame) -> bytes | None:
    """Draw the retriever's precision on validation queries, or its agreement without labels."""
    plot = Plot(title="retriever: validation", x="step", share=True)
    curves = [
        line
        for name in ("precision", "agreement")
        for line in _columns(history, f"validation/{name}", {}, prefix=f"{name}@")
    ]
    return lines(plot, curves)


def precision_over_k(curve: pl.DataFrame, names: dict[str, str]) -> bytes | None:
    """Draw precision at every k, a line a method. ``curve``: method, k, precision; ``names``:
    titles by method."""
    series = []
    for method, name in names.items():
        part = curve.filter(pl.col("method") == method).sort("k")
        series.append(Line(name=name, x=part["k"].to_list(), y=part["precision"].to_list()))
    return lines(Plot(title="precision over k", x="k, images returned", share=True), series)


def code_group_sizes(codes: npt.NDArray[np.integer]) -> bytes | None:
    """Draw a histogram of images by the size of their code group, from the database's codes (N, M):
    a bar for each power of two. None if all are in one bar."""
    _, inverse, counts = np.unique(codes, axis=0, return_inverse=True, return_counts=True)
    sizes = counts[inverse.reshape(-1)]  # (N,)
    steps = np.floor(np.log2(sizes)).astype(np.int64) if len(sizes) else np.zeros(0, np.int64)
    heights = np.bincount(steps, minlength=1)
    if np.count_nonzero(heights) < 2:
        return None
    lows = [2**i for i in range(len(heights))]
    names = [str(low) if low == 1 else f"{low}–{2 * low - 1}" for low in lows]
    plot = Plot(title="images by size of their code group", x="images with the same code")
    return bars(plot, names, heights.tolist())


def reliability(curve: Sequence[Bin]) -> bytes:
    """Draw the observed share of right hits, with its confidence interval, and the number of hits,
    over the predicted probability. On the dashed line both are equal."""
    plot = Plot(title="reliability of probabilities", x="predicted probability", share=True)
    predicted, observed = [b.predicted for b in curve], [b.observed for b in curve]
    with matplotlib.rc_context(STYLE):
        figure = _create_figure(4.2)
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        for axes in (upper, lower):
            _style_axes(axes, plot)
        upper.plot([0, 1], [0, 1], GRID, ls=(0, (4, 2)), lw=1.4)
        upper.vlines(predicted, *zip(*(b.interval for b in curve), strict=True), COLOURS[0], lw=1.8)
        upper.plot(predicted, observed, COLOURS[0], marker="o", ls="none", ms=5)
        upper.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), xlabel="", ylabel="had the label")
        rectangles = lower.bar(predicted, [b.pairs for b in curve], color=COLOURS[0], width=0.05)
        lower.bar_label(rectangles, fmt="{:,.0f}", padding=2, fontsize=9)
        lower.set_title("", loc="left")
        lower.set(ylabel="hits", yticks=[], xticks=np.linspace(0, 1, 6))
        lower.margins(y=0.35)
        lower.xaxis.set_major_formatter(lambda x, _: f"{100 * x:g}%")
        figure.align_ylabels()
        return _svg(figure, plot.title)


def _columns(
    history: pl.DataFrame,
    group: str,
    names: dict[str, str],
    *,
    prefix: str = "",
    dashed: bool = False,
) -> list[Line]:
    """Return a line for the column ``group`` and each ``group/…``, without blanks."""
    series = []
    for column in history.columns:
        if column != group and not column.startswith(f"{group}/"):
            continue
        part = history.select("step", pl.col(column).cast(pl.Float64)).drop_nulls()
        name = prefix + names.get(column, column.removeprefix(f"{group}/")).replace("_", " ")
        name = f"{name}, validation" if dashed else name
        x, y = part["step"].to_list(), part[column].to_list()
        series.append(Line(name=name, x=x, y=y, dashed=dashed))
    return series


def _finite(line: Line) -> Line:
    points = [(x, y) for x, y in zip(line.x, line.y, strict=True) if np.isfinite(y)]
    return replace(line, x=[x for x, _ in points], y=[y for _, y in points])


def _create_plot(plot: Plot) -> tuple[Figure, Axes]:
    figure = _create_figure(3.0)
    axes = figure.add_subplot()
    _style_axes(axes, plot)
    return figure, axes


def _create_figure(height: float) -> Figure:
    figure = Figure(figsize=(5.0, height), layout="constrained")  # legible on a phone's width
    figure.patch.set_alpha(0)
    return figure


def _style_axes(axes: Axes, plot: Plot) -> None:
    axes.patch.set_alpha(0)
    axes.set_title(plot.title, loc="left", fontsize=12, fontweight="bold", pad=10)
    axes.set_xlabel(plot.x)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0)
    axes.grid(axis="y", color=GRID, lw=0.6)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
    if plot.share:
        axes.yaxis.set_major_formatter(lambda y, _: f"{100 * y:g}%")


def _name_at_ends(axes: Axes, drawn: Sequence[Line], *, joined: bool = False) -> None:
    """Write each line's name right of its last point, moved up or down so that none overlap.
    ``joined``: draw a thin line from the point to the name."""
    low, high = axes.get_ylim()
    gap = (high - low) * 0.075
    order = sorted(range(len(drawn)), key=lambda i: (drawn[i].y[-1], i))
    heights = _spread([drawn[i].y[-1] for i in order], gap, low, high)
    for i, height in zip(order, heights, strict=True):
        colour = COLOURS[i % len(COLOURS)]
        end: Any = {"xy": (1.0, height), "xycoords": ("axes fraction", "data")}
        axes.annotate(
            drawn[i].name,
            **end,
            xytext=(6, 0),
            textcoords="offset points",
            color=colour,
            va="center",
            fontsize=9.5,
        )
        if joined:
            axes.annotate(
                "",
                **end,
                xytext=(drawn[i].x[-1], drawn[i].y[-1]),
                textcoords="data",
                arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.5, "alpha": 0.6},
            )
    axes.set_ylim(low, high)


def _spread(targets: list[float], gap: float, low: float, high: float) -> list[float]:
    """Return heights as near to the ``targets`` (ascending) as possible, ``gap`` apart, within the
    axis if they fit.

    >>> _spread([0.0, 0.0, 5.0], 1.0, 0.0, 5.0)
    [0.0, 1.0, 5.0]
    """
    heights: list[float] = []
    for height in targets:
        heights.append(max(height, heights[-1] + gap) if heights else max(height, low))
    ceiling = high
    for i in reversed(range(len(heights))):
        heights[i] = min(heights[i], ceiling)
        ceiling = heights[i] - gap
    return heights


def _svg(figure: Figure, salt: str) -> bytes:
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": salt}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": "irgen"})
    return buffer.getvalue()
