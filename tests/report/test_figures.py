"""Figures: the same bytes for the same numbers, and every line named."""

import xml.etree.ElementTree as ET

import numpy as np
import polars as pl
import pytest

from irgen.report import figures
from irgen.report.figures import Line, Plot
from irgen.search.calibration import Bin

HISTORY = pl.DataFrame(
    {
        "step": [1, 2, 3],
        "loss": [3.0, 2.0, 1.5],
        "loss/prefix": [2.0, 1.0, 0.5],
        "accuracy/level_1": [0.1, 0.5, 0.9],
        "codes_used/level_1": [4.0, None, 8.0],
        "perplexity/level_1": [4.0, None, 7.5],
        "validation/precision/10": [0.2, None, 0.5],
    }
)
CURVE = (
    Bin(predicted=0.04, observed=0.0, pairs=1234),
    Bin(predicted=0.97, observed=0.99, pairs=20),
)
DRAWN = {
    "losses": lambda: figures.losses(HISTORY, "tokenizer"),
    "accuracies": lambda: figures.accuracies(HISTORY, "tokenizer"),
    "codebook_use": lambda: figures.codebook_use(HISTORY, 8),
    "perplexities": lambda: figures.perplexities(HISTORY),
    "validation": lambda: figures.validation_precision(HISTORY),
    "reliability": lambda: figures.reliability(CURVE),
    "code_groups": lambda: figures.code_group_sizes(np.array([[0, 1], [0, 1], [1, 1]])),
}


def words(svg):
    return [element.text for element in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


@pytest.mark.parametrize("name", DRAWN)
def test_a_figure_is_the_same_bytes_every_time_and_holds_no_date(name):
    svg = DRAWN[name]()
    assert svg == DRAWN[name]()
    assert b"dc:date" not in svg


def test_every_line_carries_its_name():
    assert {"total", "prefix", "step", "tokenizer: losses"} <= set(words(DRAWN["losses"]()))
    assert "precision@10" in words(DRAWN["validation"]())


def test_a_chart_that_shows_nothing_is_not_drawn():
    empty = pl.DataFrame({"step": [1], "validation/precision/10": [None]})
    assert figures.validation_precision(empty) is None
    assert figures.perplexities(pl.DataFrame({"step": [1]})) is None
    still = pl.DataFrame({"step": [1, 2], "codes_used/level_1": [8.0, 8.0]})
    assert figures.codebook_use(still, 8) is None
    assert figures.code_group_sizes(np.arange(8).reshape(4, 2)) is None  # each image has its own
    assert figures.code_group_sizes(np.zeros((0, 4), np.int64)) is None


def test_infinite_and_missing_values_are_left_out():
    line = figures.Line(name="a", x=[1, 2, 3, 4], y=[0.5, float("nan"), float("inf"), 0.7])
    assert "a" in words(figures.lines(figures.Plot(title="t", x="x"), [line]))


def test_buckets_are_counted_in_images_by_powers_of_two():
    svg = figures.code_group_sizes(np.repeat([[0, 0], [1, 1], [2, 2]], [1, 3, 5], axis=0))
    assert words(svg)[:3] == ["1", "2–3", "4–7"]
    assert {"1", "3", "5"} <= set(words(svg))  # the bars' heights


def test_names_at_the_ends_of_lines_keep_their_distance_within_the_axis():
    heights = figures._spread([0.9, 0.95, 0.99, 1.0], 0.1, 0.0, 1.0)
    assert heights == pytest.approx([0.7, 0.8, 0.9, 1.0])


def test_the_reliability_curve_tells_how_many_hits_each_point_is():
    assert {"1,234", "20", "hits", "predicted probability"} <= set(words(DRAWN["reliability"]()))


def test_a_scatter_names_its_points_and_leaves_out_what_has_no_place() -> None:
    points = [
        Line(name="fast", x=[0.1], y=[0.8]),
        Line(name="slow", x=[100.0], y=[0.9]),
        Line(name="free", x=[0.0], y=[0.7]),
        Line(name="unknown", x=[float("nan")], y=[0.7]),
    ]
    plot = Plot(title="cost", x="ms", share=True)
    svg = figures.scatter(plot, points).decode()
    assert "fast" in svg and "slow" in svg and "free" not in svg and "unknown" not in svg
    assert figures.scatter(plot, points).decode() == svg
    assert figures.scatter(plot, [])


def test_codes_used_has_a_line_a_kind() -> None:
    svg = figures.codes_used(["semantic", "random"], [[10, 12, 20], [16, 16]]).decode()
    assert "semantic" in svg and "random" in svg
