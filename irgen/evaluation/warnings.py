"""Warn of results that a user must not take for good ones: each warning is a sentence or two, with
its remedy.

The functions are pure: metrics in, texts out. A metric that is missing gives no warning. To add a
warning, write a function that returns a text or None, and name it in ``list_warnings``.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from irgen.errors import redact
from irgen.evaluation.query_set import QuerySet
from irgen.params import Download, Encoder
from irgen.params.presets import DIGITS_NETWORK

NEAR_CHANCE = 0.25  # share of the way from chance (0) to perfect (1) that results must go
FINDS_ITSELF = 0.99  # share of its own images that an index must find first
DEPTH = 10  # the cut-off that is judged
UNTRAINED_ENCODER = (  # of the built-in digits
    "No encoder is chosen: encoder.weights is none, so a small network learns {size}-pixel images "
    "from nothing, as it does for the built-in digits. Photos need a pretrained one: run "
    "irgen init {source}, or set encoder in params.yaml."
)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Results to judge: ``served``, metrics of the served index; ``chance``, the capped precision
    of random results (None: no labels); ``images``: number of images of the index;
    ``trainings``, the last metrics of each training by stage."""

    served: Mapping[str, float] = field(default_factory=dict)
    chance: float | None = None
    images: int = 0
    trainings: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)


def list_warnings(outcome: Outcome, encoder: Encoder, download: Download) -> list[str]:
    """Return the warnings about a build, the gravest first."""
    warnings = [
        warn_no_encoder(encoder, download),
        warn_near_chance(outcome.served.get(f"precision_capped/{DEPTH}"), outcome.chance),
        warn_little_agreement(outcome.served.get(f"agreement/{DEPTH}"), outcome.images),
        warn_not_found(outcome.served.get("finds_itself")),
        *(warn_still_rising(stage, values) for stage, values in outcome.trainings.items()),
    ]
    return [text for text in warnings if text]


def warn_no_encoder(encoder: Encoder, download: Download) -> str | None:
    """Warn of images other than the digits that meet the digits' untrained encoder."""
    chosen = encoder.weights != "none" or encoder.options != DIGITS_NETWORK
    if chosen or download.source == "digits":
        return None
    return UNTRAINED_ENCODER.format(size=encoder.image_size, source=redact(download.source))


def warn_near_chance(precision: float | None, chance: float | None) -> str | None:
    """Warn of a precision that goes less than NEAR_CHANCE of the way from chance to perfect: with
    ten equal labels chance is 0.10 and the limit 0.33, with two 0.50 and 0.63.

    >>> warn_near_chance(0.129, 0.1)[:53]
    'Search is little better than chance: 0.13 of its firs'
    >>> warn_near_chance(0.35, 0.1)
    """
    if precision is None or chance is None or chance >= 1:
        return None
    if precision >= chance + NEAR_CHANCE * (1 - chance):
        return None
    return (
        f"Search is little better than chance: {precision:.2f} of its first {DEPTH} results are "
        f"right, random results would be {chance:.2f}. Look at the report's examples; then check "
        "that labels are right and that the encoder suits the images (irgen init chooses one)."
    )


def warn_little_agreement(agreement: float | None, images: int) -> str | None:
    """Warn, without labels, of an agreement with the encoder's neighbours that goes less than
    NEAR_CHANCE of the way from chance, k of all ``images``, to perfect.

    >>> warn_little_agreement(0.12, 400)[:67]
    'Search agrees little with the pretrained encoder: of its 10 nearest'
    >>> warn_little_agreement(0.9, 400)
    """
    chance = DEPTH / max(images, DEPTH)
    if agreement is None or agreement >= chance + NEAR_CHANCE * (1 - chance):
        return None
    return (
        f"Search agrees little with the pretrained encoder: of its {DEPTH} nearest images, "
        f"{agreement:.2f} are among the first {DEPTH} results; of random results {chance:.2f}. Set "
        "tokenizer.hidden to 0 and tokenizer.width to 256, raise evaluate.beams and "
        "evaluate.candidates, then run again."
    )


def warn_not_found(share: float | None) -> str | None:
    """Warn of an index in which too few images are the first answer to themselves."""
    if share is None or share >= FINDS_ITSELF:
        return None
    return (
        f"The index does not find itself: {share:.1%} of its images are their own first hit, at "
        f"least {FINDS_ITSELF:.0%} should be. Raise evaluate.candidates and evaluate.beams, then "
        "run again."
    )


def warn_still_rising(stage: str, metrics: Mapping[str, float | None]) -> str | None:
    """Warn of a training that ended before its validation did best."""
    if not metrics.get("validation_rising"):
        return None
    return (
        f"The {stage} was still getting better when its training ended. Raise {stage}.steps (twice "
        "as many), then run again."
    )


def measure_chance(query_set: QuerySet, k: int = DEPTH) -> float | None:
    """Return the mean precision_capped@k of random results, over the queries that have R ≥ 1
    relevant images among N: of k random images k · R / N are relevant, divided by min(k, R). None
    without such a query."""
    positives = query_set.positives[query_set.positives > 0]
    if not len(positives):
        return None
    share = np.maximum(positives, k) / max(len(query_set.database), 1)
    return float(np.minimum(share, 1).mean())


def format_warnings(warnings: Iterable[str]) -> str:
    """Return warnings as lines that stand out in a terminal; "" without one."""
    return "\n".join(f"WARNING: {text}" for text in warnings)
