"""A calibration comes back as it was written, and nothing else is taken for one."""

import json
from dataclasses import asdict

import pytest

from irgen.checkpoints.calibration import load_calibration, save_calibration
from irgen.errors import ArtifactError
from irgen.search.calibration import Bin, Calibration, Uncalibrated

KNOWN = Calibration(
    cosines=(0.1, 0.5),
    probabilities=(0.1 + 0.2, 0.9),
    queries=20,
    pairs=200,
    error=0.01,
    reliability=(Bin(predicted=0.3, observed=0.25, pairs=200),),
)


@pytest.mark.parametrize("calibration", [KNOWN, Uncalibrated(reason="too few")])
def test_what_was_written_comes_back(tmp_path, calibration):
    save_calibration(tmp_path / "calibration.json", calibration)
    assert load_calibration(tmp_path / "calibration.json") == calibration


@pytest.mark.parametrize(
    "changes",
    [
        {"cosines": [0.5, 0.1]},
        {"probabilities": [0.9, 0.3]},
        {"probabilities": [0.3, 1.2]},
        {"probabilities": [0.3]},
        {"cosines": "much"},
        {"colour": "red"},
    ],
)
def test_what_is_no_calibration_is_refused(tmp_path, changes):
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps(asdict(KNOWN) | changes))
    with pytest.raises(ArtifactError, match=r"calibration.json.*dvc repro index"):
        load_calibration(path)


@pytest.mark.parametrize("content", ["", "[]", "{}", "{", "3"])
def test_another_file_is_refused(tmp_path, content):
    path = tmp_path / "calibration.json"
    path.write_text(content)
    with pytest.raises(ArtifactError, match=r"calibration\.json"):
        load_calibration(path)
