"""Rank candidates by the probability that they have the query's label.

A label's probability combines two signals: how classifier and retriever read the query, and the
votes of the query's nearest images. A label that was not taught has votes alone, so a query of an
unknown class goes by its neighbours.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from irgen.search.ranking import LEAST_PROBABILITY, LEAST_VOTES, Ranking

NEAREST = 10  # candidates that vote for their label
PAGE = 10  # results among which one good hit has a worth of its own
COSINE_STEP = 1e-7  # of a log-probability: images of one label are sorted by cosine
FIRST_PAGE, COPY = 100.0, 1000.0  # added to sort keys, which differ by less: these come first


@dataclass(frozen=True)
class Ranker:
    """A ranking for the rows of a snapshot. ``kinds`` (rows,) int64: the label of each row, from 0
    the taught ones in the order of the classifier, from their number on all others."""

    ranking: Ranking
    kinds: Tensor


@dataclass(frozen=True)
class Ranked:
    """Candidates' ``probabilities`` (Q, C) float32 of having the query's label, and ``sort_keys``
    (Q, C) float64, the largest first; 0 and −inf where there is no candidate."""

    probabilities: Tensor
    sort_keys: Tensor


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
    query itself, has no vote. ``label_probs`` (Q, T): probabilities of the taught labels. The first
    ten besides copies are those of the highest expected worth: hits / 10, plus ``hedge`` if there
    is a hit at all. For that, the nearest image of each label with a vote counts ``hedge`` × its
    probability more.
    """
    kinds = ranker.kinds[rows.clamp_min(0)].masked_fill(rows < 0, -1)
    nearest = _find_nearest(cosines, copies)
    voters = kinds.gather(1, nearest)
    logits, total = _score_kinds(ranker.ranking, kinds, voters, label_probs)
    log_probs = (logits - total[:, None]).clamp_max(0).masked_fill(rows < 0, -torch.inf)
    probabilities = log_probs.exp()
    worth = probabilities.double() + 1e-9 * cosines.clamp_min(-1)  # of equals the nearest
    worth.scatter_add_(1, nearest, _worth_as_first(probabilities, nearest, voters, hedge))
    worth.masked_fill_(copies, -torch.inf)
    first_page = worth.topk(min(PAGE, rows.shape[1]), dim=1).indices
    sort_keys = log_probs.double() + COSINE_STEP * cosines
    sort_keys.scatter_add_(1, first_page, torch.full_like(worth, FIRST_PAGE))
    sort_keys = torch.where(copies, COPY + cosines.double(), sort_keys)
    return Ranked(probabilities.masked_fill(copies, 1), sort_keys)


def _find_nearest(cosines: Tensor, copies: Tensor) -> Tensor:
    """Return the columns (Q, n) of the nearest candidates, without the first if it is a copy."""
    nearest = cosines.topk(min(NEAREST + 1, cosines.shape[1]), dim=1).indices
    is_copy = copies.gather(1, nearest[:, :1])
    if nearest.shape[1] <= NEAREST:  # fewer candidates than votes
        return nearest
    return torch.where(is_copy, nearest[:, 1:], nearest[:, :-1])


def _worth_as_first(probabilities: Tensor, nearest: Tensor, voters: Tensor, hedge: float) -> Tensor:
    """Return what the ``nearest`` (Q, n) candidates are worth besides their own hit, for being the
    first of their kind among the ``voters`` (Q, n): float64, 0 for the others."""
    same = voters[:, :, None] == voters[:, None, :]  # (Q, n, n)
    repeated = same.tril(-1).any(2)
    worth = PAGE * hedge * probabilities.gather(1, nearest).double()
    return worth.masked_fill(repeated, 0)


def _score_kinds(
    ranking: Ranking, kinds: Tensor, voters: Tensor, label_probs: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the logits (Q, C) of candidates' ``kinds``, and the logarithm (Q,) of the sum over all
    kinds. Labels that are neither taught nor voted for add next to nothing to it."""
    count = label_probs.shape[1]
    votes = label_probs.new_zeros(len(voters), count + 1)  # the last column: no taught label
    taught = (voters >= 0) & (voters < count)
    votes.scatter_add_(1, voters.where(taught, torch.full_like(voters, count)), taught.float())
    log_probs = label_probs.clamp_min(LEAST_PROBABILITY).log()
    table = ranking.label * log_probs + ranking.votes * (votes[:, :-1] + LEAST_VOTES).log()
    logits = table.gather(1, kinds.clamp(0, count - 1))  # (Q, C)
    total = table.logsumexp(1)
    if not bool((kinds >= count).any()):
        return logits, total
    logits = torch.where(kinds >= count, _score_untaught(ranking, kinds, voters), logits)
    votes_of_voters = (voters[:, :, None] == voters[:, None, :]).sum(2)
    shares = _score_untaught(ranking, voters, voters) - votes_of_voters.log()
    shares = shares.masked_fill(voters < count, -torch.inf).logsumexp(1)
    return logits, torch.logaddexp(total, shares)


def _score_untaught(ranking: Ranking, kinds: Tensor, voters: Tensor) -> Tensor:
    """Return the logits (Q, C) of ``kinds`` (Q, C) as if none of them were taught."""
    votes = torch.full(kinds.shape, LEAST_VOTES, device=kinds.device)
    for voter in voters.T:  # ten passes take less memory than one over (Q, C, 10)
        votes += kinds == voter[:, None]
    return ranking.untaught_votes * votes.log() + ranking.untaught
