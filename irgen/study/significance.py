"""Test whether two methods differ on the same queries: a paired randomisation test."""

from typing import TypeVar

import numpy as np
import numpy.typing as npt

Name = TypeVar("Name", int, str)
Values = npt.NDArray[np.float64]

ROUNDS = 10_000
LEVEL = 0.05
BATCH = 1000  # rounds at a time: memory is BATCH × Q × 8 bytes


def p_value(first: Values, second: Values, *, rounds: int = ROUNDS, seed: int = 0) -> float:
    """Return the two-sided p value of the mean difference of two methods' values (Q,).

    Each round exchanges every query's two values or not, by a coin (Fisher's randomisation test;
    Smucker, Allan and Carterette 2007). The observed assignment counts as one round (Phipson and
    Smyth 2010), so the value is never 0; for few queries all assignments are tried. 1 if at most
    one query differs.

    >>> p_value(np.array([1.0, 1.0]), np.array([1.0, 1.0]))
    1.0
    """
    from scipy.stats import permutation_test  # takes a second to import

    assert first.shape == second.shape, "two values a query"
    differences = (first - second)[first != second]  # the others change no sum
    if len(differences) < 2:  # either sign of one difference is as large as the other
        return 1.0
    test = permutation_test(
        (differences,),  # of one sample, the signs are drawn
        np.sum,
        permutation_type="samples",
        vectorized=True,
        n_resamples=rounds,
        batch=BATCH,
        rng=np.random.default_rng(seed),
    )
    return float(test.pvalue)


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
