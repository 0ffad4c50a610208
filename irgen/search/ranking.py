"""Declare what a ranking was fitted to, without torch: a report reads it.

``irgen.search.relevance`` ranks candidates by it.
"""

from dataclasses import dataclass

from irgen.search.calibration import Bin

LEAST_PROBABILITY = 1e-4  # of a taught label: a classifier is never this certain with reason
LEAST_VOTES = 0.1
NEAREST = 10  # candidates that vote for their label


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """Coefficients of a label's logit; the probabilities of all labels add up to 1.

    A taught label has the logit ``label`` × log probability + ``votes`` × log votes; another label
    ``untaught_votes`` × log votes + ``untaught``. Votes: those of the nearest images that have the
    label, see ``irgen.search.relevance.weigh_votes``.

    Fitted to ``queries`` validation queries; ``error`` and ``reliability`` are of ``pairs`` of
    query and label, as in ``Calibration``. With labels hidden in turn, ``recognised`` is the share
    of their queries that more likely than not have none of the taught labels; ``mistaken`` is that
    of the other queries.
    """

    label: float
    votes: float
    untaught_votes: float
    untaught: float
    queries: int
    pairs: int
    error: float
    reliability: tuple[Bin, ...]
    recognised: float
    mistaken: float
