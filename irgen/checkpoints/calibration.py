"""The calibration's file, or the reason why there is none."""

from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

from irgen.errors import ArtifactError, ParamsError
from irgen.files import read_json, write_json
from irgen.params.strict import parse
from irgen.search.calibration import Calibration, Uncalibrated

CALIBRATION = "calibration.json"  # its name beside the models


def save_calibration(path: Path, found: Calibration | Uncalibrated) -> None:
    """Writes what was found as JSON."""
    write_json(path, asdict(found))


def load_calibration(path: Path) -> Calibration | Uncalibrated:
    """What ``save_calibration`` wrote. Raises ArtifactError if it is missing, damaged, or no map
    that rises from 0 at least to 1 at most."""
    tree = read_json(path)
    kind = Uncalibrated if isinstance(tree, dict) and "reason" in tree else Calibration
    try:
        found = parse(kind, tree, where=str(path))
    except ParamsError as error:
        raise ArtifactError(f"{error}: no calibration; run dvc repro index") from None
    if isinstance(found, Calibration) and not _rises(found):
        raise ArtifactError(
            f"{path}: the knots do not rise from left to right within 0 … 1; run dvc repro index"
        )
    return found


def _rises(found: Calibration) -> bool:
    x, y = found.cosines, found.probabilities
    return (
        len(x) == len(y)
        and all(a < b for a, b in pairwise(x))
        and all(a <= b for a, b in pairwise(y))
        and 0 <= y[0] <= y[-1] <= 1
    )
