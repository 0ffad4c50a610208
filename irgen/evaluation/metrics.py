"""Metrics of ranked retrieval, one value a query. To add a metric, name it in AT_CUTOFF.

Every metric takes ``hits`` (Q, k) bool: the image at this rank is relevant, best rank first, False
after the end of the list; and ``positives`` (Q,) int: R, the number of relevant images in the
database, the query itself not counted. A list shorter than the cut-off ends in misses. A query with
R = 0 cannot be answered: it scores 0 in every metric. :func:`summarise` leaves it out of the means,
and :func:`count_queries` counts it.
"""

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import numpy.typing as npt

Hits = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]
Metric = Callable[[Hits, Counts, int], Values]


def precision(hits: Hits, positives: Counts, k: int) -> Values:
    """Return the textbook's precision at k: hits in the top k / k, (Q,) float64 in [0, 1].

    With R < k it cannot reach 1; see :func:`precision_capped`.

    >>> precision(np.array([[True, False, True, False]]), np.array([2]), 4).tolist()
    [0.5]
    """
    return _count_hits(hits, positives, k) / k


def precision_capped(hits: Hits, positives: Counts, k: int) -> Values:
    """Return hits in the top k / min(k, R): 1 where nothing better is possible. (Q,) float64.

    >>> precision_capped(np.array([[True, False, True, False]]), np.array([2]), 4).tolist()
    [1.0]
    """
    return _count_hits(hits, positives, k) / np.clip(positives, 1, k)


def precision_irgen(hits: Hits, positives: Counts, k: int) -> Values:
    """Return precision at k by the rule of IRGen's code, for its reproduction tables: (Q,) float64.

    If there are R ≥ 2 positives and all are within the top k, hits / the rank of the last one;
    else hits / k. (With R = 1 it is the textbook's precision.)

    >>> precision_irgen(np.array([[True, False, True, False]]), np.array([2]), 4).round(3).tolist()
    [0.667]
    >>> precision_irgen(np.array([[True, False, True, False]]), np.array([3]), 4).tolist()
    [0.5]
    """
    top = _top(hits, positives, k)
    hit_count = top.sum(axis=1)
    last_rank = (top * np.arange(1, k + 1)).max(axis=1)
    complete = (positives >= 2) & (hit_count >= positives)
    return hit_count / np.where(complete, last_rank, k)


def hit_rate(hits: Hits, positives: Counts, k: int) -> Values:
    """Return 1 if the top k hold a relevant image, else 0 ("Recall@k" in papers). (Q,) float64.

    >>> hit_rate(np.array([[False, True], [False, False]]), np.array([5, 5]), 2).tolist()
    [1.0, 0.0]
    """
    return (_count_hits(hits, positives, k) > 0).astype(np.float64)


def recall(hits: Hits, positives: Counts, k: int) -> Values:
    """Return hits in the top k / R, (Q,) float64 in [0, 1].

    >>> recall(np.array([[True, False, True, False]]), np.array([4]), 4).tolist()
    [0.5]
    """
    return _count_hits(hits, positives, k) / np.maximum(positives, 1)


def average_precision_at_r(hits: Hits, positives: Counts) -> Values:
    """Return map@R: the sum of precision@i over the hits at ranks i ≤ R, / R. (Q,) float64.

    Always in [0, 1]; 1 if and only if the first R are all hits. Hits deeper than the list count as
    misses, so a list shorter than R gives a lower bound.

    >>> hits = np.array([[True, False, True, True]])
    >>> average_precision_at_r(hits, np.array([3])).round(4).tolist()
    [0.5556]
    """
    k = hits.shape[1]
    if k == 0:
        return np.zeros(len(hits))
    top = _top(hits, positives, k) & (np.arange(k) < positives[:, None])  # (Q, k)
    precisions = top.cumsum(axis=1) / np.arange(1, k + 1)  # (Q, k)
    return (precisions * top).sum(axis=1) / np.maximum(positives, 1)


AT_CUTOFF: dict[str, Metric] = {
    "precision": precision,
    "precision_capped": precision_capped,
    "precision_irgen": precision_irgen,
    "hit": hit_rate,
    "recall": recall,
}


def summarise(hits: Hits, positives: Counts, cutoffs: Iterable[int]) -> dict[str, float]:
    """Return means over the queries with R ≥ 1: ``precision/1`` …, ``recall/20``, and ``map/R``.

    Queries without a positive are left out, because they would lower every method alike. If no
    query has one, every mean is 0.

    >>> hits = np.array([[True, False], [False, False], [False, False]])
    >>> summarise(hits, np.array([1, 2, 0]), [2])["precision/2"]
    0.25
    """
    return means(by_query(*_answerable(hits, positives), cutoffs))


def means(values: Mapping[str, Values]) -> dict[str, float]:
    """Return the mean of each metric over the queries, 0 without any."""
    return {name: _mean(column) for name, column in values.items()}


def by_query(hits: Hits, positives: Counts, cutoffs: Iterable[int]) -> dict[str, Values]:
    """Return each metric of every query, (Q,) float64, by names like ``precision/10``.

    >>> by_query(np.array([[True, False]]), np.array([1]), [2])["precision/2"].tolist()
    [0.5]
    """
    values = {
        f"{name}/{k}": metric(hits, positives, k)
        for name, metric in AT_CUTOFF.items()
        for k in cutoffs
    }
    values["map/R"] = average_precision_at_r(hits, positives)
    return values


def precision_curve(hits: Hits, positives: Counts, depth: int) -> list[float]:
    """Return mean precision at k = 1 … ``depth`` over the queries with R ≥ 1.

    >>> precision_curve(np.array([[True, False]]), np.array([3]), 4)
    [1.0, 0.5, 0.3333333333333333, 0.25]
    """
    hits, positives = _answerable(hits, positives)
    return [_mean(precision(hits, positives, k)) for k in range(1, depth + 1)]


RECALLS = tuple(i / 20 for i in range(1, 21))


def recall_curve(hits: Hits, positives: Counts) -> list[float]:
    """Return mean interpolated precision at each of RECALLS over the queries with R ≥ 1.

    It is the best precision at any rank with that recall or more, 0 if the list never reaches it
    (TREC's definition). Hits deeper than the list count as misses.

    >>> [p for p in recall_curve(np.array([[True, False, True]]), np.array([2])) if p < 1][:2]
    [0.6666666666666666, 0.6666666666666666]
    """
    hits, positives = _answerable(hits, positives)
    if not hits.size:
        return [0.0] * len(RECALLS)
    hit_counts = hits.cumsum(axis=1)  # (Q, k)
    precisions = hit_counts / np.arange(1, hits.shape[1] + 1)
    best = np.maximum.accumulate(precisions[:, ::-1], axis=1)[:, ::-1]  # at this rank or later
    curve = []
    for recall in RECALLS:
        wanted = np.ceil(recall * positives - 1e-9)[:, None]
        reached = hit_counts >= wanted
        first = reached.argmax(axis=1)
        values = np.take_along_axis(best, first[:, None], axis=1)[:, 0]
        curve.append(_mean(np.where(reached.any(axis=1), values, 0.0)))
    return curve


def agreement(
    ids: npt.NDArray[np.int64], nearest: npt.NDArray[np.int64], cutoffs: Iterable[int]
) -> dict[str, float]:
    """Return ``agreement/k``: the share of the first k of ``nearest`` that are in the first k of
    ``ids`` too.

    It compares two searches without labels. Both (Q, any), −1 after the end of a list. The share is
    over all queries, 0 if there is no result.

    >>> agreement(np.array([[5, 7, 2]]), np.array([[7, 1, -1]]), [1, 2])
    {'agreement/1': 0.0, 'agreement/2': 0.5}
    """
    shares = {}
    for k in cutoffs:
        same, expected = _count_same(ids, nearest, k)
        shares[f"agreement/{k}"] = float(same.sum() / max(expected.sum(), 1))
    return shares


def agreement_by_query(
    ids: npt.NDArray[np.int64], nearest: npt.NDArray[np.int64], k: int
) -> Values:
    """Return that share of each query that has a nearest."""
    same, expected = _count_same(ids, nearest, k)
    return same[expected > 0] / expected[expected > 0]


def finds_copies(
    ids: npt.NDArray[np.int64], copies: npt.NDArray[np.int64], k: int
) -> dict[str, float]:
    """Return ``finds_copies``: the share of pairs (query, copy) whose copy is in the query's first
    k ``ids`` (Q, any). ``copies`` (n, 2) int64; nothing without a pair.

    >>> finds_copies(np.array([[5, 7], [1, 2]]), np.array([[0, 7], [1, 9]]), 2)
    {'finds_copies': 0.5}
    """
    if not len(copies):
        return {}
    hits = (ids[copies[:, 0], :k] == copies[:, 1:]).any(axis=1)
    return {"finds_copies": float(hits.mean())}


def count_queries(positives: Counts) -> dict[str, int]:
    """Count the queries, and those without a positive in the database.

    >>> count_queries(np.array([3, 0, 1]))
    {'count': 3, 'without_positive': 1}
    """
    return {"count": len(positives), "without_positive": int((positives == 0).sum())}


def main_cutoff(cutoffs: Iterable[int]) -> int:
    """Return the cut-off to show where there is room for one: the nearest to 10, or the smaller.

    >>> main_cutoff([1, 5, 15, 20])
    5
    """
    return min(cutoffs, key=lambda k: (abs(k - 10), k))


def _count_same(
    ids: npt.NDArray[np.int64], nearest: npt.NDArray[np.int64], k: int
) -> tuple[Counts, Counts]:
    """Count the first k of ``nearest`` that are in the first k of ``ids``, and all first k: (Q,)
    each."""
    expected, returned = (
        [set(row) - {-1} for row in lists[:, :k].tolist()] for lists in (nearest, ids)
    )
    same = [len(a & b) for a, b in zip(expected, returned, strict=True)]
    return np.array(same, np.int64), np.array([len(a) for a in expected], np.int64)


def _answerable(hits: Hits, positives: Counts) -> tuple[Hits, Counts]:
    return hits[positives > 0], positives[positives > 0]


def _mean(values: Values) -> float:
    return float(values.mean()) if len(values) else 0.0


def _count_hits(hits: Hits, positives: Counts, k: int) -> Counts:
    return _top(hits, positives, k).sum(axis=1)


def _top(hits: Hits, positives: Counts, k: int) -> Hits:
    """Return the first k ranks (Q, k), padded with misses."""
    assert k >= 1, "a cut-off is at least 1"
    assert hits.ndim == 2 and positives.shape == hits.shape[:1], "one list and one R a query"
    assert (hits.sum(axis=1) <= positives).all(), (
        "more hits than positives: an image counted twice?"
    )
    top = np.zeros((len(hits), k), dtype=bool)
    top[:, : hits.shape[1]] = hits[:, :k]
    return top
