"""Probabilities that hits have the query's label, and the least ones that a search asks for."""

from dataclasses import replace

import torch
from torch import Tensor

from irgen.errors import IndexingError
from irgen.search import calibration, engine
from irgen.search.calibration import Calibration, Uncalibrated
from irgen.search.engine import Options


def compute_same_label(fitted: Calibration | Uncalibrated, hits: engine.Hits) -> Tensor:
    """Return the probabilities (Q, k) that hits sorted by cosine have the query's label; −inf where
    nothing was fitted."""
    if isinstance(fitted, Uncalibrated):
        return torch.full_like(hits.cosine, -torch.inf)
    return calibration.apply(fitted, hits.cosine)


def bound_cosine(options: Options, fitted: Calibration | Uncalibrated) -> Options:
    """Return ``options`` with ``min_cosine`` for their ``min_probability``. Raise IndexingError if
    nothing was fitted."""
    least = options.min_probability
    if least is None:
        return options
    if isinstance(fitted, Uncalibrated):
        raise IndexingError(
            f"min_probability needs a calibrated index: {fitted.reason}; use min_score"
        )
    return replace(options, min_cosine=calibration.cosine_at(fitted, least))


def bound_score(options: Options) -> Options:
    """Return ``options`` of a search whose scores are probabilities: the larger of ``min_score``
    and ``min_probability`` counts."""
    least = [x for x in (options.min_score, options.min_probability) if x is not None]
    return replace(options, min_score=max(least, default=None))


def refuse_bound(options: Options) -> None:
    """Raise IndexingError if the options of a search by words ask for a least probability."""
    if options.min_probability is not None:
        raise IndexingError(
            "min_probability: nothing says how probable a hit for words is; use min_score"
        )
