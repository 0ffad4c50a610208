"""A ranking comes back as it was written, and nothing else is taken for one."""

import json
from dataclasses import asdict

import pytest

from irgen.checkpoints.ranking import load_ranking, save_ranking
from irgen.errors import ArtifactError
from irgen.search.calibration import Bin, Uncalibrated
from irgen.search.ranking import Ranking

RANKING = Ranking(
    label=1.2,
    votes=0.1 + 0.2,
    untaught_votes=1.7,
    untaught=-2.2,
    queries=100,
    pairs=500,
    error=0.01,
    reliability=(Bin(predicted=0.3, observed=0.25, pairs=500),),
    recognised=0.6,
    mistaken=0.1 + 0.2,
)


@pytest.mark.parametrize("ranking", [RANKING, Uncalibrated(reason="too few")])
def test_what_was_written_comes_back(tmp_path, ranking):
    save_ranking(tmp_path / "ranking.json", ranking)
    assert load_ranking(tmp_path / "ranking.json") == ranking


@pytest.mark.parametrize("changes", [{"label": "much"}, {"colour": "red"}, {"votes": None}])
def test_what_is_no_ranking_is_refused(tmp_path, changes):
    path = tmp_path / "ranking.json"
    path.write_text(json.dumps(asdict(RANKING) | changes))
    with pytest.raises(ArtifactError, match=r"ranking.json.*dvc repro index"):
        load_ranking(path)
