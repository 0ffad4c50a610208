"""Save and load the ranking, or the reason why there is none."""

from dataclasses import asdict
from pathlib import Path

from irgen.errors import ArtifactError, ParamsError
from irgen.files.records import read_json, write_json
from irgen.params.strict import parse
from irgen.search.calibration import Uncalibrated
from irgen.search.ranking import Ranking

RANKING = "ranking.json"  # its name beside the models


def save_ranking(path: Path, ranking: Ranking | Uncalibrated) -> None:
    """Write the ranking, or the reason why there is none, as JSON."""
    write_json(path, asdict(ranking))


def load_ranking(path: Path) -> Ranking | Uncalibrated:
    """Load a ranking. Raises ArtifactError if the file is missing or damaged."""
    tree = read_json(path)
    kind = Uncalibrated if isinstance(tree, dict) and "reason" in tree else Ranking
    try:
        return parse(kind, tree, where=str(path))
    except ParamsError as error:
        raise ArtifactError(f"{error}: no ranking; run dvc repro index") from None
