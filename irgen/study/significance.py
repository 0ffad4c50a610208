"""Estimate how sure the difference of two methods is: a paired bootstrap over queries and seeds."""

from functools import lru_cache
from typing import TypeVar

import numpy as np
import numpy.typing as npt

Name = TypeVar("Name", int, str)
Values = npt.NDArray[np.float64]

ROUNDS = 4000
LEVEL = 0.05


def resample(differences: Values) -> Values:
    """Return the mean difference of ROUNDS resampled experiments: (ROUNDS,), the same each time.

    ``differences`` (S, Q): one method's value of a query less the other's, NaN where a seed does
    not have the query. Each round draws S seeds and Q queries with replacement, so it answers other
    queries by other trainings (Efron 1979; for two crossed factors: Owen 2007). A draw in which no
    seed has a query counts as no difference.
    """
    measured = ~np.isnan(differences)
    values = np.where(measured, differences, 0.0)
    seed_counts, query_counts = (_draw(count) for count in differences.shape)
    totals = (query_counts @ values.T * seed_counts).sum(1)  # (ROUNDS,)
    counts = (query_counts @ measured.T * seed_counts).sum(1)
    return totals / np.maximum(counts, 1)


@lru_cache(maxsize=4)  # comparisons of a table share the draws, of ROUNDS × Q × 8 bytes
def _draw(count: int) -> Values:
    """Return how often each round draws each of ``count`` things: (ROUNDS, count)."""
    generator = np.random.default_rng(count)
    return generator.multinomial(count, np.full(count, 1 / count), size=ROUNDS).astype(np.float64)


def interval(means: Values) -> tuple[float, float]:
    """Return the ends of the interval that holds 1 − LEVEL of the resampled means (n,).

    >>> interval(np.arange(101.0))
    (2.5, 97.5)
    """
    low, high = np.quantile(means, [LEVEL / 2, 1 - LEVEL / 2])
    return float(low), float(high)


def p_value(means: Values) -> float:
    """Return the two-sided p value of a difference: twice the share of resampled means (n,) on its
    other side of 0. The observed one counts as a round, so it is never 0.

    >>> p_value(np.array([0.1, 0.2, 0.3])), p_value(np.array([0.1, -0.2, 0.0]))
    (0.5, 1.0)
    """
    fewer = min(int((means <= 0).sum()), int((means >= 0).sum()))
    return min(1.0, 2 * (fewer + 1) / (len(means) + 1))


def corrected(p_values: dict[Name, float]) -> dict[Name, float]:
    """Return the p values of several comparisons after Holm's correction (1979): LEVEL then bounds
    the chance of any false positive.

    >>> corrected({"a": 0.01, "b": 0.04, "c": 0.03})
    {'a': 0.03, 'b': 0.06, 'c': 0.06}
    """
    names = sorted(p_values, key=lambda name: (p_values[name], name))
    scaled = [min(1.0, (len(names) - rank) * p_values[name]) for rank, name in enumerate(names)]
    highest = dict(zip(names, np.maximum.accumulate(scaled).tolist(), strict=True))
    return {name: highest[name] for name in p_values}
