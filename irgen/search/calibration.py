"""Map a hit's cosine to the probability that it has the query's label."""

import math
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Bin:
    """Hits with about the same predicted probability: its mean (``predicted``), the share of them
    with the query's label (``observed``), and their number (``pairs`` of query and hit)."""

    predicted: float
    observed: float
    pairs: int

    @property
    def interval(self) -> tuple[float, float]:
        """Return the 95% confidence interval of ``observed`` (Wilson 1927), as if hits were
        independent.

        >>> low, high = Bin(predicted=0.5, observed=1.0, pairs=8).interval
        >>> round(low, 2), round(high, 2)
        (0.68, 1.0)
        """
        share, slack = self.observed, 1.96**2 / self.pairs
        middle = (share + slack / 2) / (1 + slack)
        half = math.sqrt(share * (1 - share) * slack + slack**2 / 4) / (1 + slack)
        return middle - half, middle + half


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A non-decreasing map from cosine to probability: linear between its knots, flat beyond.

    ``cosines`` (ascending) and ``probabilities`` are the knots, at least one. It was fitted to
    ``pairs`` hits of ``queries`` queries. ``error`` is the expected calibration error, from 0 to 1:
    the mean gap between predicted and observed over ``reliability``, weighted by pairs. It is
    cross-fitted: a map fitted to one half of the queries predicts the other half.
    """

    cosines: tuple[float, ...]
    probabilities: tuple[float, ...]
    queries: int
    pairs: int
    error: float
    reliability: tuple[Bin, ...]


@dataclass(frozen=True, kw_only=True)
class Uncalibrated:
    """No map exists, for this ``reason``."""

    reason: str


NO_LABELS = Uncalibrated(reason="its images have no labels")


def apply(calibration: Calibration, cosines: "Tensor") -> "Tensor":
    """Return the probabilities of hits with these cosines, any shape, float32; −inf where there is
    no hit (cosine −inf).

    >>> import torch
    >>> knots = {"cosines": (0.0, 1.0), "probabilities": (0.25, 0.75)}
    >>> calibration = Calibration(**knots, queries=1, pairs=1, error=0.0, reliability=())
    >>> apply(calibration, torch.tensor([-0.5, 0.5, 2.0, -torch.inf])).tolist()
    [0.25, 0.5, 0.75, -inf]
    """
    import torch  # takes seconds; a report does not need it

    x, y = (
        torch.tensor(knots, dtype=torch.float64, device=cosines.device)
        for knots in (calibration.cosines, calibration.probabilities)
    )
    z = cosines.double()
    above = torch.bucketize(z, x).clamp_max(len(x) - 1)  # the knot at or above, or the last
    below = (above - 1).clamp_min(0)
    weight = ((z - x[below]) / (x[above] - x[below]).clamp_min(1e-12)).clamp(0, 1)
    values = y[below] + weight * (y[above] - y[below])
    return values.masked_fill(z == -torch.inf, -torch.inf).float()


def cosine_at(calibration: Calibration, probability: float) -> float:
    """Return the lowest cosine that maps to at least ``probability``; inf if none does.

    >>> knots = {"cosines": (0.0, 1.0), "probabilities": (0.25, 0.75)}
    >>> calibration = Calibration(**knots, queries=1, pairs=1, error=0.0, reliability=())
    >>> cosine_at(calibration, 0.5), cosine_at(calibration, 0.1), cosine_at(calibration, 0.8)
    (0.5, -inf, inf)
    """
    x, y = calibration.cosines, calibration.probabilities
    if probability <= y[0]:
        return -inf
    for i in range(1, len(x)):
        if probability <= y[i]:
            return x[i - 1] + (probability - y[i - 1]) / (y[i] - y[i - 1]) * (x[i] - x[i - 1])
    return inf
