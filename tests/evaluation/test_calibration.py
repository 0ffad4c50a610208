"""Probabilities that mean what they say, and none where there is nothing to learn them from."""

import json
import re
from dataclasses import asdict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from irgen.evaluation.calibration import MAX_KNOTS, MIN_PAIRS, MIN_QUERIES, fit, fit_knots
from irgen.search.calibration import Calibration, Uncalibrated, apply


def truth(cosines):
    return 1 / (1 + np.exp(-12 * (cosines - 0.6)))


def sample(queries=400, k=50, seed=0):
    """Hits whose chance of being right is known."""
    generator = np.random.default_rng(seed)
    cosines = generator.beta(5, 2, (queries, k)).astype(np.float32)
    return cosines, generator.random(cosines.shape) < truth(cosines)


def fitted(*given) -> Calibration:
    calibration = fit(*given)
    assert isinstance(calibration, Calibration)
    return calibration


def test_the_map_comes_near_the_true_probabilities():
    calibration = fitted(*sample())
    at = np.linspace(0.3, 0.98, 50)
    probabilities = apply(calibration, torch.from_numpy(at)).numpy()
    assert np.abs(probabilities - truth(at)).max() < 0.06
    assert (calibration.queries, calibration.pairs) == (400, 20_000)
    assert len(calibration.cosines) <= MAX_KNOTS


@pytest.mark.parametrize("seed", range(3))
def test_the_map_is_that_of_scikit_learns_isotonic_regression(seed, monkeypatch):
    from sklearn.isotonic import IsotonicRegression

    monkeypatch.setattr("irgen.evaluation.calibration.PAIRS_PER_KNOT", 1)
    monkeypatch.setattr("irgen.evaluation.calibration.MAX_KNOTS", 10_000)
    cosines, right = (each.ravel() for each in sample(queries=9, seed=seed))
    x, y = fit_knots(cosines, right)
    imagined = np.append(cosines, [cosines.min(), cosines.max()]), np.append(right, [True, False])
    model = IsotonicRegression().fit(*imagined)
    np.testing.assert_allclose(np.interp(cosines, x, y), model.predict(cosines), atol=1e-9)
    assert (np.diff(x) > 0).all() and len(x) <= 2 * len(np.unique(y))


def test_the_error_is_that_of_queries_the_map_has_not_seen():
    assert fitted(*sample()).error < 0.02
    cosines, right = sample()
    right[::2] ^= True  # every other query is told the contrary of what the others are like
    assert fitted(cosines, right).error > 0.3


def test_the_reliability_counts_every_pair_once():
    calibration = fitted(*sample())
    assert sum(each.pairs for each in calibration.reliability) == calibration.pairs
    predicted = [each.predicted for each in calibration.reliability]
    assert predicted == sorted(predicted)
    gaps = [each.pairs * abs(each.predicted - each.observed) for each in calibration.reliability]
    assert calibration.error == pytest.approx(sum(gaps) / calibration.pairs)


def test_two_fits_are_equal_and_pass_through_json_unchanged():
    calibration = fitted(*sample())
    assert calibration == fitted(*sample())
    text = json.dumps(asdict(calibration), allow_nan=False)
    assert tuple(json.loads(text)["cosines"]) == calibration.cosines


def test_places_without_a_hit_do_not_count():
    cosines, right = sample(k=20)
    wide = np.pad(cosines, ((0, 3), (0, 5)), constant_values=-np.inf)
    assert fitted(wide, np.pad(right, ((0, 3), (0, 5)))) == fitted(cosines, right)


def test_no_number_of_pairs_that_are_alike_makes_a_hit_certain():
    cosines = np.tile(np.linspace(0, 1, 40, dtype=np.float32), (50, 1))
    _, y = fit_knots(cosines.ravel(), (cosines > 0.5).ravel())
    assert 0 < y[0] <= 1 / 500 and 1 - 1 / 500 <= y[-1] < 1


@pytest.mark.parametrize(
    ("cosines", "right", "reason"),
    [
        (np.zeros((0, 10)), np.zeros((0, 10), bool), "0 validation queries"),
        (*sample(MIN_QUERIES - 1), "too few"),
        (*sample(100, 1), f"100 hits are too few .* {MIN_PAIRS}"),
        (np.full((100, 10), -np.inf), np.zeros((100, 10), bool), "0 hits"),
        (sample()[0], np.ones((400, 50), bool), "every hit"),
        (sample()[0], np.zeros((400, 50), bool), "no hit"),
    ],
    ids=["no query", "few queries", "few pairs", "no hits", "all right", "none right"],
)
def test_where_nothing_can_be_learnt_there_is_a_reason_and_no_number(cosines, right, reason):
    calibration = fit(cosines, right)
    assert isinstance(calibration, Uncalibrated)
    assert list(asdict(calibration)) == ["reason"]
    assert re.search(reason, calibration.reason)


def test_the_least_there_may_be_is_enough():
    cosines, right = sample(MIN_QUERIES, MIN_PAIRS // MIN_QUERIES)
    assert 0 <= fitted(cosines, right).error <= 1


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(st.sampled_from([-1.0, 0.0, 0.3, 0.31, 0.9, 1.0]), st.booleans()), min_size=1
    )
)
def test_the_map_never_falls_and_stays_within_zero_and_one(pairs):
    cosines = np.array([cosine for cosine, _ in pairs])
    x, y = fit_knots(cosines, np.array([right for _, right in pairs]))
    assert (np.diff(x) > 0).all() and (np.diff(y) >= 0).all()
    assert y.min() > 0 and y.max() < 1
    made = {"queries": 1, "pairs": 1, "error": 0.0, "reliability": ()}
    calibration = Calibration(cosines=tuple(x.tolist()), probabilities=tuple(y.tolist()), **made)
    at = np.linspace(-1.1, 1.1, 101)
    probabilities = apply(calibration, torch.from_numpy(at)).numpy()
    np.testing.assert_allclose(probabilities, np.interp(at, x, y), atol=1e-6)
