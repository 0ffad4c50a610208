"""Fit the map from a hit's cosine to the probability that it is right, and measure its error.

The hits are those of validation queries.

Isotonic regression (Barlow & Brunk 1972; for probabilities: Zadrozny & Elkan 2002).
"""

from math import isfinite

import numpy as np
import numpy.typing as npt

from irgen.search.calibration import Bin, Calibration, Uncalibrated, cosine_at

MIN_QUERIES = 20  # with a hit each
MIN_PAIRS = 200
PAIRS_PER_KNOT = 50  # at least
MAX_KNOTS = 50
BINS = 10  # of equal width, for the reliability curve and the error

Cosines = npt.NDArray[np.floating]
Right = npt.NDArray[np.bool_]


def fit(cosines: Cosines, right: Right) -> Calibration | Uncalibrated:
    """Fit the map, or return why that is impossible: too few queries or pairs, or all pairs right,
    or all wrong.

    ``cosines`` (Q, k) of each query's hits, −inf where there is none; ``right`` (Q, k): the hit has
    the query's label.
    """
    exist = np.isfinite(cosines)
    answered = exist.any(axis=1)
    cosines, right, exist = cosines[answered], right[answered], exist[answered]
    queries, pairs, positive = len(cosines), int(exist.sum()), int(right[exist].sum())
    if queries < MIN_QUERIES or pairs < MIN_PAIRS:
        return Uncalibrated(
            reason=f"{queries} validation queries with {pairs} hits are too few to fit to: "
            f"{MIN_QUERIES} with {MIN_PAIRS} are needed"
        )
    if positive in (0, pairs):
        hits = "every hit has" if positive else "no hit has"
        return Uncalibrated(reason=f"{hits} its validation query's label: nothing to fit")
    x, y = fit_knots(cosines[exist], right[exist])
    curve = bin_predictions(_cross_fit(cosines, right, exist)[exist], right[exist])
    return Calibration(
        cosines=tuple(x.tolist()),
        probabilities=tuple(y.tolist()),
        queries=queries,
        pairs=pairs,
        error=expected_error(curve),
        reliability=curve,
    )


def fit_knots(
    cosines: Cosines, right: Right
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the knots of the map for pairs (n,), n > 0: ascending cosines, non-decreasing
    probabilities.

    Pairs are grouped by rank, at least PAIRS_PER_KNOT a group. One imagined pair at either end
    contradicts the rest there, so that no hit is certain: n equal pairs in a row give at most
    (n + 1) / (n + 2), and at least 1 / (n + 2).
    """
    from scipy.optimize import isotonic_regression  # takes a second; a report does not need it

    cosines = np.concatenate([cosines, [cosines.min(), cosines.max()]]).astype(np.float64)
    right = np.concatenate([right, [True, False]]).astype(np.float64)
    order = np.argsort(cosines, kind="stable")
    cosines, right = cosines[order], right[order]
    count = max(1, min(MAX_KNOTS, len(cosines) // PAIRS_PER_KNOT))
    first = cosines[np.arange(count) * len(cosines) // count]
    starts = np.unique(np.searchsorted(cosines, first))  # pairs of one cosine stay together
    sizes = np.diff(np.append(starts, len(cosines)))
    x, y = (np.add.reduceat(values, starts) / sizes for values in (cosines, right))
    y = isotonic_regression(y, weights=sizes).x.clip(0, 1)  # means are rounded
    bends = np.append(True, y[1:] != y[:-1])  # keep both ends of a level stretch
    bends |= np.append(bends[1:], True)
    return x[bends], y[bends]


def _cross_fit(cosines: Cosines, right: Right, exist: Right) -> npt.NDArray[np.float64]:
    """Predict each hit (Q, k) by a map fitted to the other half of the queries, every other one."""
    predicted = np.full(cosines.shape, np.nan)
    half = np.arange(len(cosines)) % 2
    for part in (0, 1):
        test, train = exist & (half == part)[:, None], exist & (half != part)[:, None]
        predicted[test] = np.interp(cosines[test], *fit_knots(cosines[train], right[train]))
    return predicted


def bin_predictions(predicted: npt.NDArray[np.floating], right: Right) -> tuple[Bin, ...]:
    """Return pairs (n,) in BINS of equal width by predicted probability, ascending, without empty
    bins.

    >>> bin_predictions(np.array([0.0, 0.08, 0.96]), np.array([False, True, True]))
    (Bin(predicted=0.04, observed=0.5, pairs=2), Bin(predicted=0.96, observed=1.0, pairs=1))
    """
    number = np.minimum((predicted * BINS).astype(np.int64), BINS - 1)
    return tuple(
        Bin(
            predicted=float(predicted[number == i].mean()),
            observed=float(right[number == i].mean()),
            pairs=int((number == i).sum()),
        )
        for i in np.unique(number)
    )


def expected_error(curve: tuple[Bin, ...]) -> float:
    """Return the mean gap between predicted and observed, weighted by pairs (Naeini et al. 2015).

    >>> low = Bin(predicted=0.25, observed=0.5, pairs=3)
    >>> expected_error((low, Bin(predicted=0.75, observed=0.75, pairs=1)))
    0.1875
    """
    pairs = sum(part.pairs for part in curve)
    return sum(part.pairs * abs(part.predicted - part.observed) for part in curve) / pairs


def explain(calibration: Calibration) -> str:
    """Describe in sentences what the map was fitted to, its error, and from which cosines on a hit
    is likely right or nearly certain."""
    text = (
        f"The map was fitted to {calibration.pairs:,} hits of {calibration.queries:,} validation "
        "images. No model was trained on them. The average error is "
        f"{100 * calibration.error:.1f} points: a map fitted to one half of the images predicts "
        "the other half. The figure compares predicted probabilities with the observed share; the "
        "lines are 95% intervals."
    )
    likely, sure = cosine_at(calibration, 0.5), cosine_at(calibration, 0.95)
    if isfinite(likely):
        text += f" From a cosine of {likely:.2f} on, a hit is more likely right than wrong"
        text += f"; from {sure:.2f} on, 95% are right." if isfinite(sure) else "."
    elif isfinite(sure):
        text += f" From a cosine of {sure:.2f} on, 95% of hits are right."
    return text
