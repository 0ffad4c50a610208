"""The randomisation test against its exact distribution, and Holm's correction."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from irgen.study.significance import LEVEL, corrected, p_value


def exact(first: np.ndarray, second: np.ndarray) -> float:
    """Return the share of all sign assignments whose difference is at least the observed one."""
    differences = first - second
    sums = [
        abs((np.array(signs) * differences).sum()) for signs in product((-1, 1), repeat=len(first))
    ]
    return float(np.mean([total >= abs(differences.sum()) - 1e-12 for total in sums]))


def test_it_agrees_with_the_exact_distribution_of_few_queries() -> None:
    generator = np.random.default_rng(0)
    for _ in range(5):
        first, second = generator.random(9), generator.random(9)
        assert p_value(first, second) == pytest.approx(exact(first, second), abs=0.02)


def test_one_query_that_differs_says_nothing() -> None:
    first, second = np.array([0.5, 0.5, 0.9]), np.array([0.5, 0.5, 0.1])
    assert p_value(first, second) == exact(first, second) == 1.0


def test_a_gain_of_every_query_is_significant_and_noise_is_not() -> None:
    generator = np.random.default_rng(1)
    base = generator.random(100)
    assert p_value(base + 0.1, base) < 0.001
    assert p_value(base + generator.normal(0, 0.1, 100), base) > LEVEL


def test_false_alarms_are_as_rare_as_the_level_says() -> None:
    generator = np.random.default_rng(2)
    alarms = [
        p_value(generator.integers(0, 2, 40) / 1.0, generator.integers(0, 2, 40) / 1.0, rounds=500)
        < LEVEL
        for _ in range(300)
    ]
    assert np.mean(alarms) < 2 * LEVEL


def test_it_is_the_same_either_way_and_each_time() -> None:
    generator = np.random.default_rng(3)
    first, second = generator.random(30), generator.random(30)
    assert p_value(first, second) == p_value(second, first) == p_value(first, second)


@given(st.dictionaries(st.text(max_size=3), st.floats(0, 1), max_size=8))
def test_the_correction_keeps_the_order_and_never_lowers_a_value(values: dict[str, float]) -> None:
    adjusted = corrected(values)
    assert list(adjusted) == list(values)
    assert all(values[name] <= adjusted[name] <= 1 for name in values)
    ranked = sorted(values, key=lambda name: values[name])
    assert [adjusted[name] for name in ranked] == sorted(adjusted[name] for name in ranked)
