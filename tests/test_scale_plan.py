"""The plan for a billion images is what the measured results give."""

import dataclasses
import importlib.util
import json

import pytest


@pytest.fixture(scope="module")
def scale_plan(root):
    path = root / "benchmarks" / "scale_plan.py"
    spec = importlib.util.spec_from_file_location("scale_plan", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_are_those_of_the_newest_results(scale_plan):
    """Run ``python benchmarks/scale_plan.py`` after another benchmark."""
    assert (scale_plan.RESULTS / "scale-plan.md").read_text() == scale_plan.render(
        scale_plan.read()
    )


def test_a_release_is_the_sum_of_its_parts_and_the_measured_million_is_one(scale_plan):
    measured = scale_plan.read()
    rows = {name: float(values[0].replace(",", "")) for name, *values in scale_plan.plan(measured)}
    parts = ("trie", "codes, keys, flags", "embeddings", "ids and metadata")
    assert rows["**a release, GB**"] == pytest.approx(
        sum(rows[f"{name}, GB"] for name in parts), rel=0.01
    )
    large = json.loads((scale_plan.RESULTS / "serve.json").read_text())["start"]["measured"][-1]
    narrow = measured.trie + measured.rows + measured.metadata + 2 * scale_plan.SERVED_WIDTH
    # models and the like apart, which do not grow
    assert narrow * large["images"] == pytest.approx(large["disk"], rel=0.05)


def test_what_is_met_first_comes_first_and_moves_with_its_cost(scale_plan):
    measured = scale_plan.read()
    counts = [images for _, images, _ in scale_plan.limits(measured)]
    assert counts == sorted(counts)
    slow = dataclasses.replace(measured, encode=1000 * measured.encode)
    assert "encoding" in scale_plan.limits(slow)[0][0]
