"""Whether two methods really differ: a paired randomisation test over the same queries."""

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]

ROUNDS = 10_000
LEVEL = 0.05
BLOCK = 500  # rounds at a time


def p_value(first: Values, second: Values, *, rounds: int = ROUNDS, seed: int = 0) -> float:
    """How probable a mean difference as large as this one is, either way, if it were by chance
    which of a query's two values (Q,) is whose (Fisher's randomisation test; Smucker, Allan and
    Carterette 2007).

    In each round every query's two values are exchanged or not, by a coin. The observed assignment
    counts as one round (Phipson and Smyth 2010), so the value is never 0. 1 if no query differs.

    >>> p_value(np.array([1.0, 1.0]), np.array([1.0, 1.0]))
    1.0
    """
    assert first.shape == second.shape, "two values a query"
    differences = (first - second)[first != second]  # the others change no sum
    if not len(differences):
        return 1.0
    observed = abs(differences.sum())
    slack = 1e-9 * np.abs(differences).sum()  # sums in another order differ in their last digits
    generator = np.random.default_rng(seed)
    extreme = 0
    for start in range(0, rounds, BLOCK):
        count = min(BLOCK, rounds - start)
        signs = generator.integers(0, 2, (count, len(differences)), dtype=np.int8) * 2 - 1
        extreme += int((np.abs(signs @ differences) >= observed - slack).sum())
    return (extreme + 1) / (rounds + 1)


def corrected(values: dict[str, float]) -> dict[str, float]:
    """The p values of several comparisons made at once, so that LEVEL bounds the chance of any
    false one (Holm 1979).

    >>> corrected({"a": 0.01, "b": 0.04, "c": 0.03})
    {'a': 0.03, 'b': 0.06, 'c': 0.06}
    """
    found: dict[str, float] = {}
    highest = 0.0
    for rank, name in enumerate(sorted(values, key=lambda each: (values[each], each))):
        highest = max(highest, min(1.0, (len(values) - rank) * values[name]))
        found[name] = highest
    return {name: found[name] for name in values}
