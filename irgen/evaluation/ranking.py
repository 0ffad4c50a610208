"""Fit the ranking: how much classifier, retriever and nearest images say about a query's label.

A conditional logit over labels (McFadden 1974). To see what an unknown class looks like, each label
is once treated as if nobody had taught it: its probability goes to the others, and its images have
votes alone. The embedding has seen those labels, so their votes are somewhat purer than those of a
class that is truly new. Validation images are more like the training's than later queries are, so
the classifier is trusted less than the fit says. docs/lab-notes/ranking-by-relevance.md has both
differences, measured.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from irgen.evaluation.calibration import MIN_QUERIES, bin_predictions, expected_error
from irgen.search.calibration import Uncalibrated
from irgen.search.ranking import LEAST_PROBABILITY, LEAST_VOTES, Ranking

FOLDS = 5  # of labels
TYPICAL = np.array([0.7, 0.7, 1.7, -1.7])  # coefficients to which few queries are pulled
TRUST = 0.6  # of the coefficient that fits the validation queries' label probabilities best
PULL = 1.0  # nats lost for a coefficient that is 1 off
SHOWN = 5  # likeliest labels a query whose probabilities are compared with the truth
MOST_CELLS = 2_000_000  # queries × labels, if MIN_QUERIES take no more; enough for 4 coefficients

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class LabelTable:
    """Q queries over the T taught labels.

    ``label_probs`` (Q, T): as classifier and retriever read the query. ``votes`` (Q, T): of the
    nearest images for each label, see ``Ranking``. ``truth`` (Q,): the query's label.
    """

    label_probs: Floats
    votes: Floats
    truth: Ints

    @classmethod
    def build(cls, label_probs: Floats, voters: Ints, votes: Floats, truth: Ints) -> "LabelTable":
        """Build the table from the labels of nearest images, ``voters`` (Q, n), −1 where there are
        fewer, their ``votes`` (Q, n), and the labels of the queries (Q,)."""
        totals = np.zeros(label_probs.shape)
        for labels, weights in zip(voters.T, votes.T, strict=True):
            chosen = np.flatnonzero(labels >= 0)
            totals[chosen, labels[chosen]] += weights[chosen]
        return cls(label_probs.astype(np.float64), totals, truth)

    def take(self, rows: npt.NDArray[np.bool_]) -> "LabelTable":
        """Return the table of the queries where ``rows`` (Q,) is true."""
        return LabelTable(self.label_probs[rows], self.votes[rows], self.truth[rows])

    def features(self, hidden: npt.NDArray[np.bool_]) -> Floats:
        """Return what the coefficients multiply, (Q, T, 4), as if the labels where ``hidden`` (T,)
        is true had not been taught."""
        probs = np.where(hidden, 0, self.label_probs)
        probs = probs / np.maximum(probs.sum(1, keepdims=True), 1e-30)
        log_votes = np.log(self.votes + LEAST_VOTES)
        log_probs = np.log(np.maximum(probs, LEAST_PROBABILITY))
        values = np.stack([log_probs, log_votes, log_votes, np.ones_like(log_probs)], -1)
        return values * np.stack([~hidden, ~hidden, hidden, hidden], -1)


def choose_queries(truth: Ints, labels: int) -> Ints:
    """Return the rows of the queries to fit to, by their labels ``truth`` (Q,): those of a taught
    label, below ``labels``; where these are very many, as few queries as a fit needs."""
    used = np.flatnonzero((truth >= 0) & (truth < labels))
    step = min(math.ceil(len(used) * labels / MOST_CELLS), len(used) // MIN_QUERIES)
    return used[:: max(1, step)]


def fit(label_probs: Floats, voters: Ints, votes: Floats, truth: Ints) -> Ranking | Uncalibrated:
    """Fit the ranking to queries that ``choose_queries`` chose, or return why that is impossible:
    too few queries or labels. Arguments: see ``LabelTable.build``."""
    table = LabelTable.build(label_probs, voters, votes, truth)
    queries = len(table.truth)
    if queries < MIN_QUERIES:
        return Uncalibrated(
            reason=f"{queries} validation queries with a label are too few to fit a ranking to: "
            f"{MIN_QUERIES} are needed"
        )
    if label_probs.shape[1] < 2:
        return Uncalibrated(reason="one label was taught: a ranking tells labels apart")
    weights = _fit_weights(table).tolist()
    halves = _fit_halves(table)
    predicted, right = _predict_labels(halves)
    recognised, mistaken = _recognise_untaught(halves)
    curve = bin_predictions(predicted, right)
    return Ranking(
        label=weights[0],
        votes=weights[1],
        untaught_votes=weights[2],
        untaught=weights[3],
        queries=queries,
        pairs=len(predicted),
        error=expected_error(curve),
        reliability=curve,
        recognised=recognised,
        mistaken=mistaken,
    )


def _fit_weights(table: LabelTable) -> Floats:
    """Return the four coefficients, the first three not negative: that of the label probabilities
    as it fits best, lowered to TRUST, and the others as they fit best with it."""
    fitted = _minimize_loss(table, TYPICAL / [TRUST, 1, 1, 1], (0, None))
    label = TRUST * fitted[0]
    return _minimize_loss(table, np.array([label, *TYPICAL[1:]]), (label, label))


def _minimize_loss(
    table: LabelTable, typical: Floats, label_bounds: tuple[float, float | None]
) -> Floats:
    """Return the coefficients with the least loss, pulled to ``typical``; the first is within
    ``label_bounds``."""
    from scipy.optimize import minimize  # takes a second; a report does not need it

    parts = [table.features(hidden) for hidden in _hide_in_turn(table)]
    rows = np.arange(len(table.truth))

    def loss(weights: Floats) -> tuple[float, Floats]:
        total = PULL * float(np.square(weights - typical).sum())
        slope = 2 * PULL * (weights - typical)
        for features in parts:
            probs = _softmax(features @ weights)
            total -= float(np.log(probs[rows, table.truth] + 1e-300).sum()) / len(parts)
            mean = np.einsum("qg,qgf->f", probs, features)
            slope = slope + (mean - features[rows, table.truth].sum(0)) / len(parts)
        return total, slope

    bounds = [label_bounds, (0, None), (0, None), (None, None)]
    return minimize(loss, typical, jac=True, method="L-BFGS-B", bounds=bounds).x


def _hide_in_turn(table: LabelTable) -> list[npt.NDArray[np.bool_]]:
    """Return which labels (T,) are hidden in each fold."""
    labels = table.label_probs.shape[1]
    folds = np.random.default_rng(0).permutation(labels) % min(FOLDS, labels)
    return [folds == fold for fold in np.unique(folds)]


def _fit_halves(table: LabelTable) -> list[tuple[Floats, LabelTable]]:
    """Return coefficients fitted to either half of the queries, each with the other half."""
    half = np.arange(len(table.truth)) % 2
    return [(_fit_weights(table.take(half != part)), table.take(half == part)) for part in (0, 1)]


def _predict_labels(
    halves: list[tuple[Floats, LabelTable]],
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Return the probabilities (n,) of the SHOWN likeliest labels of each query, and which are
    right."""
    predicted, right = [], []
    for weights, table in halves:
        hidden = np.zeros(table.label_probs.shape[1], bool)
        probs = _softmax(table.features(hidden) @ weights)
        likeliest = np.argsort(-probs, axis=1)[:, :SHOWN]
        predicted.append(np.take_along_axis(probs, likeliest, 1).ravel())
        right.append((likeliest == table.truth[:, None]).ravel())
    return np.concatenate(predicted), np.concatenate(right)


def _recognise_untaught(halves: list[tuple[Floats, LabelTable]]) -> tuple[float, float]:
    """Return the share of queries of hidden labels, and of others, that more likely than not have a
    hidden label."""
    likely, hidden_truth = [], []
    for weights, table in halves:
        for hidden in _hide_in_turn(table):
            probs = _softmax(table.features(hidden) @ weights)
            likely.append(probs[:, hidden].sum(1) > 0.5)
            hidden_truth.append(hidden[table.truth])
    chosen, is_hidden = np.concatenate(likely), np.concatenate(hidden_truth)
    return float(chosen[is_hidden].mean()), float(chosen[~is_hidden].mean())


def _softmax(logits: Floats) -> Floats:
    values = np.exp(logits - logits.max(1, keepdims=True))
    return values / values.sum(1, keepdims=True)


def explain(ranking: Ranking) -> str:
    """Describe in sentences what the ranking was fitted to, and its error."""
    return (
        "Hits are sorted by the probability that they have the query's label. It was fitted to "
        f"{ranking.queries:,} validation images. No model was trained on them. The average error "
        f"is {100 * ranking.error:.1f} points: coefficients fitted to one half of the images "
        "predict the other half. The figure compares the predicted probabilities of the "
        f"{SHOWN} likeliest labels with the observed share; the lines are 95% intervals. Where a "
        f"label is treated as if nobody had taught it, {ranking.recognised:.0%} of its images are "
        f"recognised as of no taught label; so are, by mistake, {ranking.mistaken:.0%} of the "
        "others."
    )
