"""Our metrics beside independent libraries on a thousand rankings, and beside IRGen's own rules."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from sklearn import metrics as judges

from irgen.evaluation import metrics

QUERIES, IMAGES, LABELS = 1000, 50, 6


@pytest.fixture(scope="module")
def rankings() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Random cosines' order (QUERIES, IMAGES) of one database, best first, and the labels: of
    queries, of images. The first label is rare and no image has the last one."""
    generator = np.random.default_rng(0)
    order = generator.permuted(np.tile(np.arange(IMAGES), (QUERIES, 1)), axis=1)
    images = generator.integers(1, LABELS - 1, IMAGES)
    images[7] = 0
    queries = generator.integers(LABELS, size=QUERIES)
    hits = images[order] == queries[:, None]
    return order, queries, images, hits


@pytest.mark.parametrize("k", [1, 5, 10, 20, 50])
def test_precision_recall_and_hit_of_a_thousand_rankings_are_scikit_learns(rankings, k):
    order, queries, images, hits = rankings
    relevant = images[None] == queries[:, None]  # (Q, N), in the database's own order
    returned = np.zeros_like(relevant)
    np.put_along_axis(returned, order[:, :k], True, axis=1)
    each = {"average": None, "zero_division": 0.0}  # a ranking is scikit-learn's label
    positives = relevant.sum(axis=1)
    assert metrics.precision(hits, positives, k) == pytest.approx(
        judges.precision_score(relevant.T, returned.T, **each)
    )
    assert metrics.recall(hits, positives, k) == pytest.approx(
        judges.recall_score(relevant.T, returned.T, **each)
    )
    right = judges.multilabel_confusion_matrix(relevant.T, returned.T)[:, 1, 1]
    assert (metrics.hit_rate(hits, positives, k) == (right > 0)).all()
    assert 0 < (right == 0).sum() < QUERIES or k == IMAGES


def test_map_at_r_of_a_thousand_rankings_is_pytorch_metric_learnings(rankings):
    order, queries, images, hits = rankings

    def nearest(*_):  # of the embeddings, had we any
        return None, torch.from_numpy(order)

    names = ("mean_average_precision_at_r", "precision_at_1", "r_precision")
    calculator = AccuracyCalculator(
        include=names, k=IMAGES, knn_func=nearest, device=torch.device("cpu")
    )
    expected = calculator.get_accuracy(
        torch.zeros(QUERIES, 1),
        torch.from_numpy(queries),
        torch.zeros(IMAGES, 1),
        torch.from_numpy(images),
        ref_includes_query=False,
    )
    positives = hits.sum(axis=1)
    assert 0 < (positives == 0).sum() < QUERIES / 2
    summary = metrics.summarise(hits, positives, [1])
    assert summary["map/R"] == pytest.approx(expected["mean_average_precision_at_r"], abs=1e-9)
    assert summary["precision/1"] == pytest.approx(expected["precision_at_1"], abs=1e-9)
    assert 0.05 < summary["map/R"] < 0.5


# --- the rules of IRGen's code -------------------------------------------------------------------

HITS = np.array([[True, True, False, False, True, False, False, False, False, False]])


@pytest.mark.parametrize(
    ("positives", "k", "expected"),
    [
        (3, 10, 3 / 5),  # all three are found: the list ends with the last of them
        (3, 5, 3 / 5),
        (3, 4, 2 / 4),  # not all are found within k
        (4, 10, 3 / 10),  # one is missing
        (3, 1, 1.0),
    ],
)
def test_precision_by_irgens_rule_ends_with_the_last_positive(positives, k, expected):
    assert metrics.precision_irgen(HITS, np.array([positives]), k) == pytest.approx([expected])


def test_by_irgens_rule_an_in_shop_query_with_all_three_on_top_is_perfect_at_10_and_20():
    hits = np.array([[True] * 3 + [False] * 17])
    for k in (10, 20):
        assert metrics.precision_irgen(hits, np.array([3]), k).tolist() == [1.0]
        assert metrics.precision(hits, np.array([3]), k).tolist() == [3 / k]


def irgens_map(hits: np.ndarray, positives: np.ndarray, k: int) -> np.ndarray:
    """Mean average precision as IRGen's code has it: the sum of precision@i over the hits at ranks
    i ≤ ``k``, divided by min(R, 10) whatever k is."""
    top = hits[:, :k]
    precisions = top.cumsum(axis=1) / np.arange(1, top.shape[1] + 1)
    return (precisions * top).sum(axis=1) / np.minimum(positives, 10)


def test_irgens_map_of_thirty_hits_is_three_and_ours_is_one():
    hits, positives = np.ones((1, 30), bool), np.array([30])
    assert irgens_map(hits, positives, 30).tolist() == [3.0]
    assert metrics.average_precision_at_r(hits, positives).tolist() == [1.0]


@settings(max_examples=200, deadline=None)
@given(arrays(bool, st.tuples(st.integers(1, 4), st.integers(1, 40))), st.integers(0, 9))
def test_our_map_never_exceeds_one_nor_irgens(hits, missing):
    positives = np.maximum(hits.sum(axis=1) + missing, 1)
    ours = metrics.average_precision_at_r(hits, positives)
    assert ((ours >= 0) & (ours <= 1 + 1e-12)).all()
    assert (ours <= irgens_map(hits, positives, hits.shape[1]) + 1e-12).all()
