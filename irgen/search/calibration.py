"""How sure a hit is: from its cosine to the probability that it carries the query's label."""

import math
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Bin:
    """Hits that were told about the same probability: the mean of what they were told, the share
    that did carry their query's label, and how many hits these are."""

    predicted: float
    observed: float
    pairs: int

    @property
    def interval(self) -> tuple[float, float]:
        """Where the share of all such hits lies, with 95% confidence (Wilson 1927), as if no two
        hits had to do with each other.

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
    """A map from cosine to probability that never falls: straight between its knots, flat beyond.

    ``cosines`` (ascending) and ``probabilities`` are the knots, of at least one. It was fitted to
    ``pairs`` hits of ``queries`` queries. ``error`` is the expected calibration error, from 0 to 1:
    the mean gap between predicted and observed over ``reliability``, weighted by pairs, each half
    of the queries being told by a map that was fitted to the other.
    """

    cosines: tuple[float, ...]
    probabilities: tuple[float, ...]
    queries: int
    pairs: int
    error: float
    reliability: tuple[Bin, ...]


@dataclass(frozen=True, kw_only=True)
class Uncalibrated:
    """There is no map, for this ``reason``."""

    reason: str


def apply(calibration: Calibration, cosines: "Tensor") -> "Tensor":
    """Probabilities of hits with these cosines, of any shape, float32; −inf where there is no hit
    (cosine −inf).

    >>> import torch
    >>> knots = {"cosines": (0.0, 1.0), "probabilities": (0.25, 0.75)}
    >>> known = Calibration(**knots, queries=1, pairs=1, error=0.0, reliability=())
    >>> apply(known, torch.tensor([-0.5, 0.5, 2.0, -torch.inf])).tolist()
    [0.25, 0.5, 0.75, -inf]
    """
    import torch  # seconds that a report need not pay

    x, y = (
        torch.tensor(each, dtype=torch.float64, device=cosines.device)
        for each in (calibration.cosines, calibration.probabilities)
    )
    at = cosines.double()
    above = torch.bucketize(at, x).clamp_max(len(x) - 1)  # the knot at or above, or the last
    below = (above - 1).clamp_min(0)
    share = ((at - x[below]) / (x[above] - x[below]).clamp_min(1e-12)).clamp(0, 1)
    found = y[below] + share * (y[above] - y[below])
    return found.masked_fill(at == -torch.inf, -torch.inf).float()


def cosine_of(calibration: Calibration, probability: float) -> float:
    """The lowest cosine that is told at least ``probability``; inf if none is.

    >>> knots = {"cosines": (0.0, 1.0), "probabilities": (0.25, 0.75)}
    >>> known = Calibration(**knots, queries=1, pairs=1, error=0.0, reliability=())
    >>> cosine_of(known, 0.5), cosine_of(known, 0.1), cosine_of(known, 0.8)
    (0.5, -inf, inf)
    """
    x, y = calibration.cosines, calibration.probabilities
    if probability <= y[0]:
        return -inf
    for i in range(1, len(x)):
        if probability <= y[i]:
            return x[i - 1] + (probability - y[i - 1]) / (y[i] - y[i - 1]) * (x[i] - x[i - 1])
    return inf
