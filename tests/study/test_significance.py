"""The paired bootstrap against what is known of its distribution, and Holm's correction."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from irgen.study.significance import LEVEL, ROUNDS, corrected, interval, p_value, resample

UNKNOWN = float("nan")


def test_of_one_seed_the_means_spread_by_the_standard_error_of_the_queries() -> None:
    differences = np.random.default_rng(0).normal(0.1, 1, (1, 400))
    means = resample(differences)
    assert means.shape == (ROUNDS,)
    assert means.mean() == pytest.approx(differences.mean(), abs=0.005)
    assert means.std() == pytest.approx(differences.std() / 20, rel=0.05)


def test_trainings_that_differ_widen_the_interval() -> None:
    noise = np.random.default_rng(1).normal(0, 0.1, (3, 400))
    alike, apart = noise + 0.05, noise + np.array([[-0.1], [0.05], [0.2]])
    low, high = interval(resample(alike))
    wider_low, wider_high = interval(resample(apart))
    assert 0 < low < 0.05 < high and wider_low < 0 < wider_high


def test_queries_that_a_seed_does_not_ask_do_not_count() -> None:
    differences = np.full((2, 40), 0.25)
    differences[0, :30] = UNKNOWN
    assert resample(differences) == pytest.approx(np.full(ROUNDS, 0.25))


def test_a_gain_of_every_query_is_significant_and_noise_is_not() -> None:
    noise = np.random.default_rng(1).normal(0, 0.1, (3, 100))
    assert p_value(resample(noise + 0.1)) < 0.001
    assert p_value(resample(noise)) > LEVEL
    assert p_value(resample(np.zeros((3, 100)))) == 1


def test_one_query_that_differs_says_nothing() -> None:
    assert p_value(resample(np.array([[0.0, 0.0, 0.8]]))) > LEVEL


def test_false_alarms_are_about_as_rare_as_the_level_says() -> None:
    generator = np.random.default_rng(2)
    alarms = [
        p_value(resample(generator.integers(-1, 2, (1, 60)) / 1.0)) < LEVEL for _ in range(300)
    ]
    assert np.mean(alarms) < 2 * LEVEL


def test_it_is_the_same_either_way_and_each_time() -> None:
    differences = np.random.default_rng(3).random((3, 30)) - 0.4
    p = p_value(resample(differences))
    assert p == p_value(resample(-differences)) == p_value(resample(differences))


@given(st.dictionaries(st.text(max_size=3), st.floats(0, 1), max_size=8))
def test_the_correction_keeps_the_order_and_never_lowers_a_value(values: dict[str, float]) -> None:
    adjusted = corrected(values)
    assert list(adjusted) == list(values)
    assert all(values[name] <= adjusted[name] <= 1 for name in values)
    ranked = sorted(values, key=lambda name: values[name])
    assert [adjusted[name] for name in ranked] == sorted(adjusted[name] for name in ranked)
