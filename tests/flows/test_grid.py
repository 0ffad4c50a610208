"""The points of a grid of parameters."""

from pathlib import Path

import pytest

from flows import grid
from irgen.errors import ParamsError


@pytest.fixture
def params(tmp_path: Path) -> Path:
    path = tmp_path / "params.yaml"
    path.write_text("tokenizer: {levels: 2, width: 8}\npairs: {rule: near}\n")
    return path


def test_every_combination_is_a_point_once(params: Path) -> None:
    points = grid.points({"tokenizer.levels": [2, 3], "pairs.rule": ["near", "same_label"]}, params)
    assert [grid.told(point) for point in points] == [
        "tokenizer.levels=2 pairs.rule=near",
        "tokenizer.levels=2 pairs.rule=same_label",
        "tokenizer.levels=3 pairs.rule=near",
        "tokenizer.levels=3 pairs.rule=same_label",
    ]


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"tokenizer.level": [1]}, "did you mean 'tokenizer.levels'"),
        ({"qqq": [1]}, "no such key"),
        ({"tokenizer.levels": []}, "at least one value"),
        ({}, "give keys"),
    ],
)
def test_a_grid_that_makes_no_sense_is_told(params: Path, parameters: dict, told: str) -> None:
    with pytest.raises(ParamsError, match=told):
        grid.points(parameters, params)


def test_values_are_written_as_yaml_reads_them() -> None:
    point = {"a": True, "b": None, "c": [1, 2], "d": 1e-05, "e": "x"}
    assert grid.settings(point)[1::2] == ["a=true", "b=null", "c=[1, 2]", "d=1e-05", "e=x"]
