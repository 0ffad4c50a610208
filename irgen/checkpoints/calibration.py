"""Save and load the calibration, or the reason why there is none."""

from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

from irgen.errors import ArtifactError, ParamsError
from irgen.files.records import read_json, write_json
from irgen.params.strict import parse
from irgen.search.calibration import Calibration, Uncalibrated

CALIBRATION = "calibration.json"  # its name beside the models


def save_calibration(path: Path, calibration: Calibration | Uncalibrated) -> None:
    """Write the calibration, or the reason why there is none, as JSON."""
    write_json(path, asdict(calibration))


def load_calibration(path: Path) -> Calibration | Uncalibrated:
    """Load a calibration. Raises ArtifactError if the file is missing or damaged, or if the map
    does not rise within 0 … 1."""
    tree = read_json(path)
    kind = Uncalibrated if isinstance(tree, dict) and "reason" in tree else Calibration
    try:
        calibration = parse(kind, tree, where=str(path))
    except ParamsError as error:
        raise ArtifactError(f"{error}: no calibration; run dvc repro index") from None
    if isinstance(calibration, Calibration) and not _rises(calibration):
        raise ArtifactError(
            f"{path}: the knots do not rise from left to right within 0 … 1; run dvc repro index"
        )
    return calibration


def _rises(calibration: Calibration) -> bool:
    x, y = calibration.cosines, calibration.probabilities
    return (
        len(x) == len(y)
        and all(a < b for a, b in pairwise(x))
        and all(a <= b for a, b in pairwise(y))
        and 0 <= y[0] <= y[-1] <= 1
    )
