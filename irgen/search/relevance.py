"""Rank candidates by the probability that they have the query's label.

A label's probability combines two signals: how classifier and retriever read the query, and the
votes of the query's nearest images. The nearest counts most, and an image that nobody trained on
counts more than one that the classifier has learnt by heart. A label that was not taught has votes
alone, so a query of an unknown class goes by its neighbours. A copy of a labelled image has the
image's label, unless a measurement must not know it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from irgen.search.ranking import LEAST_PROBABILITY, LEAST_VOTES, NEAREST, Ranking

STEEPNESS = 1.5  # of votes: the nearest has 2 ** 1.5 times those of the second
FRESH_VOTES = 2.0  # of an image that nobody trained on, where a trained one has 1
PAGE = 10  # results among which one good hit has a worth of its own
COSINE_STEP = 1e-7  # of a log-probability: images of one label are sorted by cosine
DOUBT = 1e-3  # that a copy has its image's label; it keeps the other labels in order
FIRST_PAGE, COPY = 100.0, 1000.0  # added to sort keys, which differ by less: these come first


@dataclass(frozen=True)
class Ranker:
    """A ranking for the rows of a snapshot. ``kinds`` (rows,) int64: the label of each row, from 0
    the taught ones in the order of the classifier, from their number on all others. (rows,) bool:
    ``trained``, the models were trained on the image; ``labelled``, it has a label, which its
    copies have, too. ``labelled`` is None in a measurement whose queries may be in the index."""

    ranking: Ranking
    kinds: Tensor
    trained: Tensor
    labelled: Tensor | None = None


@dataclass(frozen=True)
class _Voters:
    """Kinds of the nearest images, −1 where there are fewer, and their votes: both (Q, n)."""

    kinds: Tensor
    votes: Tensor


@dataclass(frozen=True)
class Ranked:
    """Candidates' ``probabilities`` (Q, C) float32 of having the query's label, and ``sort_keys``
    (Q, C) float64, the largest first; 0 and −inf where there is no candidate. ``untaught`` (Q,)
    float32: the probability that the query's label is none of the taught ones."""

    probabilities: Tensor
    sort_keys: Tensor
    untaught: Tensor


def rank_candidates(
    ranker: Ranker,
    rows: Tensor,
    cosines: Tensor,
    copies: Tensor,
    label_probs: Tensor,
    hedge: float,
) -> Ranked:
    """Rank candidate ``rows`` (Q, C), −1 where there is none, of these ``cosines`` (Q, C).

    ``copies`` (Q, C) bool: of the query; they come first, and the nearest of them, which may be the
    query itself, has no vote. The label of a ``labelled`` one is the query's. ``label_probs``
    (Q, T): probabilities of the taught labels. The first ten besides copies are those of the
    highest expected worth: hits / 10, plus ``hedge`` if there is a hit at all. For that, the
    nearest image of each label with a vote counts ``hedge`` × its probability more.
    """
    kinds = ranker.kinds[rows.clamp_min(0)].masked_fill(rows < 0, -1)
    nearest = _find_nearest(cosines, copies)
    voter_rows = rows.gather(1, nearest)
    trained = ranker.trained[voter_rows.clamp_min(0)]
    voters = _Voters(kinds.gather(1, nearest), weigh_votes(trained, voter_rows >= 0))
    logits = _score_kinds(ranker.ranking, kinds, voters, label_probs)
    taught, untaught = _sum_kinds(ranker.ranking, voters, label_probs)
    total = torch.logaddexp(taught, untaught)
    log_probs, unlike = (logits - total[:, None]).clamp_max(0), untaught - total
    if ranker.labelled is not None:
        known = _find_known(ranker.labelled, rows, kinds, cosines, copies)
        log_probs = _give_label(log_probs, _count_votes(kinds, known), known)
        strange = known.votes * (known.kinds >= label_probs.shape[1])
        unlike = _give_label(unlike, strange.sum(1), known)
    log_probs = log_probs.masked_fill(rows < 0, -torch.inf)
    probabilities = log_probs.exp()
    worth = probabilities.double() + 1e-9 * cosines.clamp_min(-1)  # of equals the nearest
    worth.scatter_add_(1, nearest, _worth_as_first(probabilities, nearest, voters.kinds, hedge))
    worth.masked_fill_(copies, -torch.inf)
    first_page = worth.topk(min(PAGE, rows.shape[1]), dim=1).indices
    sort_keys = log_probs.double() + COSINE_STEP * cosines
    sort_keys.scatter_add_(1, first_page, torch.full_like(worth, FIRST_PAGE))
    sort_keys = torch.where(copies, COPY + cosines.double(), sort_keys)
    return Ranked(probabilities.masked_fill(copies, 1), sort_keys, unlike.exp())


def _find_nearest(cosines: Tensor, copies: Tensor) -> Tensor:
    """Return the columns (Q, n) of the nearest candidates, without the first if it is a copy."""
    nearest = cosines.topk(min(NEAREST + 1, cosines.shape[1]), dim=1).indices
    is_copy = copies.gather(1, nearest[:, :1])
    if nearest.shape[1] <= NEAREST:  # fewer candidates than votes
        return nearest
    return torch.where(is_copy, nearest[:, 1:], nearest[:, :-1])


def _find_known(
    labelled: Tensor, rows: Tensor, kinds: Tensor, cosines: Tensor, copies: Tensor
) -> _Voters:
    """Return the nearest candidates; those that are copies of labelled images share one vote."""
    nearest = cosines.topk(min(NEAREST, cosines.shape[1]), dim=1).indices
    own = rows.gather(1, nearest)
    known = copies.gather(1, nearest) & (own >= 0) & labelled[own.clamp_min(0)]
    votes = known / known.sum(1, keepdim=True).clamp_min(1)
    return _Voters(kinds.gather(1, nearest), votes)


def _give_label(log_probs: Tensor, shares: Tensor, known: _Voters) -> Tensor:
    """Return ``log_probs`` (Q, …); of a query with a copy whose label is known, those that follow
    from the ``shares`` (Q, …) of such copies."""
    has_label = known.votes.any(1).view(-1, *[1] * (log_probs.ndim - 1))
    given = ((1 - DOUBT) * shares + DOUBT * log_probs.exp()).log()
    return torch.where(has_label, given, log_probs)


def weigh_votes(trained: Tensor, exist: Tensor) -> Tensor:
    """Return the votes (Q, n) float32 of nearest images, the nearest first: NEAREST in all.

    Those of the i-th fall as i ** −STEEPNESS. An image that is not ``trained`` (Q, n) on has
    FRESH_VOTES times as many; one that does not ``exist`` (Q, n) has none.
    """
    ranks = torch.arange(1, trained.shape[1] + 1, device=trained.device)
    votes = ranks.float() ** -STEEPNESS * torch.where(trained, 1.0, FRESH_VOTES) * exist
    return NEAREST * votes / votes.sum(1, keepdim=True).clamp_min(1e-9)


def _worth_as_first(probabilities: Tensor, nearest: Tensor, kinds: Tensor, hedge: float) -> Tensor:
    """Return what the ``nearest`` (Q, n) candidates are worth besides their own hit, for being the
    first of their ``kinds`` (Q, n): float64, 0 for the others."""
    same = kinds[:, :, None] == kinds[:, None, :]  # (Q, n, n)
    repeated = same.tril(-1).any(2)
    worth = PAGE * hedge * probabilities.gather(1, nearest).double()
    return worth.masked_fill(repeated, 0)


def _sum_kinds(ranking: Ranking, voters: _Voters, label_probs: Tensor) -> tuple[Tensor, Tensor]:
    """Return the logarithms (Q,) of the sums over all taught labels, and over all others that are
    voted for. Those without a vote add next to nothing."""
    own, count = voters.kinds, label_probs.shape[1]
    labels = torch.arange(count, device=own.device).expand(len(own), -1)
    taught = _score_kinds(ranking, labels, voters, label_probs).logsumexp(1)
    alike = (own[:, :, None] == own[:, None, :]).sum(2)  # each label counts once
    others = _score_kinds(ranking, own, voters, label_probs) - alike.log()
    return taught, others.masked_fill(own < count, -torch.inf).logsumexp(1)


def _score_kinds(ranking: Ranking, kinds: Tensor, voters: _Voters, label_probs: Tensor) -> Tensor:
    """Return the logits (Q, K) of ``kinds`` (Q, K)."""
    log_votes = (_count_votes(kinds, voters) + LEAST_VOTES).log()
    taught = label_probs.shape[1]
    log_probs = label_probs.clamp_min(LEAST_PROBABILITY).log().gather(1, kinds.clamp(0, taught - 1))
    return torch.where(
        kinds < taught,
        ranking.label * log_probs + ranking.votes * log_votes,
        ranking.untaught_votes * log_votes + ranking.untaught,
    )


def _count_votes(kinds: Tensor, voters: _Voters) -> Tensor:
    """Return the votes (Q, K) for ``kinds`` (Q, K)."""
    votes = torch.zeros(kinds.shape, device=kinds.device)
    for kind, weight in zip(voters.kinds.T, voters.votes.T, strict=True):  # not (Q, K, n) at once
        votes += weight[:, None] * (kinds == kind[:, None])
    return votes
