"""Fits the map from cosine to probability to validation queries' hits, and measures it on others'.

Isotonic regression (Barlow & Brunk 1972; for probabilities: Zadrozny & Elkan 2002).
"""

from math import isfinite

import numpy as np
import numpy.typing as npt

from irgen.search.calibration import Bin, Calibration, Uncalibrated, cosine_at

LEAST_QUERIES = 20  # with a hit each; of fewer nothing is learnt
LEAST_PAIRS = 200
PAIRS_A_KNOT = 50  # at least
MOST_KNOTS = 50
BINS = 10  # of equal width, for the reliability curve and the error

Cosines = npt.NDArray[np.floating]
Right = npt.NDArray[np.bool_]


def fit(cosines: Cosines, right: Right) -> Calibration | Uncalibrated:
    """The map that fits best, or why there is none: too few queries or pairs, or all pairs alike.

    ``cosines`` (Q, k) of each query's hits, −inf where there is none; ``right`` (Q, k): the hit
    carries the query's label.
    """
    there = np.isfinite(cosines)
    answered = there.any(axis=1)
    cosines, right, there = cosines[answered], right[answered], there[answered]
    queries, pairs, positive = len(cosines), int(there.sum()), int(right[there].sum())
    if queries < LEAST_QUERIES or pairs < LEAST_PAIRS:
        return Uncalibrated(
            reason=f"{queries} validation queries with {pairs} hits are too few to learn from: "
            f"{LEAST_QUERIES} with {LEAST_PAIRS} are needed"
        )
    if positive in (0, pairs):
        what = "every hit carries" if positive else "no hit carries"
        return Uncalibrated(reason=f"{what} its validation query's label: nothing to tell apart")
    x, y = knots(cosines[there], right[there])
    told = _cross_fitted(cosines, right, there)
    curve = reliability(told[there], right[there])
    return Calibration(
        cosines=tuple(x.tolist()),
        probabilities=tuple(y.tolist()),
        queries=queries,
        pairs=pairs,
        error=expected_error(curve),
        reliability=curve,
    )


def knots(
    cosines: Cosines, right: Right
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The knots of the map for pairs (n,), n > 0: cosines ascending, probabilities never falling.

    Pairs are taken together by rank, at least PAIRS_A_KNOT at a time. One imagined pair at either
    end speaks against the rest there, so that no number of pairs that are all alike makes a hit
    certain: n of them in a row give (n + 1) / (n + 2) at most, or 1 / (n + 2).
    """
    from scipy.optimize import isotonic_regression  # takes a second, and a report fits nothing

    cosines = np.concatenate([cosines, [cosines.min(), cosines.max()]]).astype(np.float64)
    right = np.concatenate([right, [True, False]]).astype(np.float64)
    order = np.argsort(cosines, kind="stable")
    cosines, right = cosines[order], right[order]
    count = max(1, min(MOST_KNOTS, len(cosines) // PAIRS_A_KNOT))
    first = cosines[np.arange(count) * len(cosines) // count]
    starts = np.unique(np.searchsorted(cosines, first))  # pairs of one cosine stay together
    sizes = np.diff(np.append(starts, len(cosines)))
    x, y = (np.add.reduceat(values, starts) / sizes for values in (cosines, right))
    y = isotonic_regression(y, weights=sizes).x.clip(0, 1)  # means are rounded
    bends = np.append(True, y[1:] != y[:-1])  # of a level stretch its two ends are enough
    bends |= np.append(bends[1:], True)
    return x[bends], y[bends]


def _cross_fitted(cosines: Cosines, right: Right, there: Right) -> npt.NDArray[np.float64]:
    """What each hit (Q, k) is told by the map of the other half of the queries, every other one."""
    told = np.full(cosines.shape, np.nan)
    half = np.arange(len(cosines)) % 2
    for mine in (0, 1):
        own, others = there & (half == mine)[:, None], there & (half != mine)[:, None]
        told[own] = np.interp(cosines[own], *knots(cosines[others], right[others]))
    return told


def reliability(told: npt.NDArray[np.floating], right: Right) -> tuple[Bin, ...]:
    """Pairs (n,) in BINS of equal width of the probability they were told, ascending; empty bins
    are left out.

    >>> reliability(np.array([0.0, 0.08, 0.96]), np.array([False, True, True]))
    (Bin(predicted=0.04, observed=0.5, pairs=2), Bin(predicted=0.96, observed=1.0, pairs=1))
    """
    number = np.minimum((told * BINS).astype(np.int64), BINS - 1)
    return tuple(
        Bin(
            predicted=float(told[number == i].mean()),
            observed=float(right[number == i].mean()),
            pairs=int((number == i).sum()),
        )
        for i in np.unique(number)
    )


def expected_error(curve: tuple[Bin, ...]) -> float:
    """The mean gap between predicted and observed, weighted by pairs (Naeini et al. 2015).

    >>> low = Bin(predicted=0.25, observed=0.5, pairs=3)
    >>> expected_error((low, Bin(predicted=0.75, observed=0.75, pairs=1)))
    0.1875
    """
    pairs = sum(each.pairs for each in curve)
    return sum(each.pairs * abs(each.predicted - each.observed) for each in curve) / pairs


def words(known: Calibration) -> str:
    """What was learnt from how much, how far it is off, and from which cosines on a hit is likely
    and nearly certain, in plain sentences."""
    says = (
        f"It was learnt from {known.pairs:,} hits of {known.queries:,} validation images, which "
        f"nothing was trained on, and is off by {100 * known.error:.1f} points on average: each "
        "half of these images was told by what the other half had taught. The figure sets what "
        "their hits were told against the share that was true; the strokes are 95% intervals."
    )
    likely, sure = cosine_at(known, 0.5), cosine_at(known, 0.95)
    if isfinite(likely):
        says += f" From a cosine of {likely:.2f} on a hit is more likely right than wrong"
        says += f", from {sure:.2f} on it is 95% sure." if isfinite(sure) else "."
    elif isfinite(sure):
        says += f" From a cosine of {sure:.2f} on a hit is 95% sure."
    return says
