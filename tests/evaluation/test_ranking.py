"""The ranking is fitted to validation queries, and has seen what an unknown label looks like."""

import numpy as np
import pytest

from irgen.evaluation import ranking
from irgen.search.calibration import Uncalibrated
from irgen.search.ranking import Ranking

LABELS = 5


def draw(
    queries: int, votes_right: float, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return label probabilities, the labels of ten nearest images, their votes, and the truth of
    queries whose neighbours are right with this probability."""
    generator = np.random.default_rng(seed)
    truth = generator.integers(LABELS, size=queries)
    logits = generator.normal(size=(queries, LABELS))
    logits[np.arange(queries), truth] += 2
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    voters = generator.integers(LABELS, size=(queries, 10))
    right = generator.random((queries, 10)) < votes_right
    return probs, np.where(right, truth[:, None], voters), np.ones((queries, 10)), truth


def test_votes_count_more_where_they_are_right_more_often() -> None:
    poor, good = (ranking.fit(*draw(400, share)) for share in (0.0, 0.6))
    assert isinstance(poor, Ranking) and isinstance(good, Ranking)
    assert good.votes > poor.votes and good.untaught_votes > poor.untaught_votes
    assert poor.label > 0.5 and good.queries == 400


def test_the_probabilities_are_right_about_queries_that_were_not_fitted_to() -> None:
    fitted = ranking.fit(*draw(2000, 0.3))
    assert isinstance(fitted, Ranking)
    assert fitted.pairs == 2000 * LABELS and fitted.error < 0.04
    assert "2,000 validation images" in ranking.explain(fitted)


def test_the_ranking_says_how_often_it_recognises_a_label_that_nobody_taught() -> None:
    poor, good = (ranking.fit(*draw(400, share)) for share in (0.0, 0.9))
    assert isinstance(poor, Ranking) and isinstance(good, Ranking)
    assert good.recognised > 0.8 > poor.recognised and good.mistaken < 0.1
    assert f"{good.recognised:.0%} of its images are recognised" in ranking.explain(good)


def test_the_classifier_is_trusted_less_than_fits_the_validation_images_best() -> None:
    table = ranking.LabelTable.build(*draw(1000, 0.3))
    best = ranking._minimize_loss(table, ranking.TYPICAL, (0, None))
    assert ranking._fit_weights(table)[0] == pytest.approx(ranking.TRUST * best[0], rel=0.02)


def test_few_queries_are_pulled_to_typical_coefficients() -> None:
    few, many = ranking.fit(*draw(25, 0.0)), ranking.fit(*draw(1000, 0.0))
    assert isinstance(few, Ranking) and isinstance(many, Ranking)
    typical = ranking.TYPICAL[1]
    assert abs(few.votes - typical) <= abs(many.votes - typical) + 0.05


def test_queries_of_a_label_that_was_not_taught_take_no_part() -> None:
    truth = np.array([3, -1, 0, LABELS, LABELS - 1])
    assert ranking.choose_queries(truth, LABELS).tolist() == [0, 2, 4]


def test_of_very_many_labels_as_many_queries_are_used_as_a_fit_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ranking, "MOST_CELLS", 10 * LABELS)
    drawn = draw(400, 0.5)
    used = ranking.choose_queries(drawn[-1], LABELS)
    fitted = ranking.fit(*(values[used] for values in drawn))
    assert isinstance(fitted, Ranking) and fitted.queries == ranking.MIN_QUERIES


@pytest.mark.parametrize(("queries", "labels", "reason"), [(9, 5, "too few"), (60, 1, "one label")])
def test_what_cannot_be_fitted_says_why(queries: int, labels: int, reason: str) -> None:
    probs, voters, votes, truth = draw(queries, 0.5)
    fitted = ranking.fit(probs[:, :labels], voters % labels, votes, truth % labels)
    assert isinstance(fitted, Uncalibrated) and reason in fitted.reason
