"""Metrics: by hand, by property, and beside independent libraries."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from sklearn.metrics import average_precision_score

from irgen.evaluation import metrics

EVERY = list(metrics.AT_CUTOFF.values())
HITS = np.array(
    [
        [True, False, True, False],  # R = 2: both found, the last at rank 3
        [False, False, False, False],  # R = 3: none found
        [True, True, False, True],  # R = 5: three found
        [False, True, False, False],  # R = 1: found at rank 2
        [False, False, False, False],  # R = 0
    ]
)
POSITIVES = np.array([2, 3, 5, 1, 0])


@pytest.mark.parametrize(
    ("metric", "k", "expected"),
    [
        (metrics.precision, 1, [1, 0, 1, 0, 0]),
        (metrics.precision, 4, [2 / 4, 0, 3 / 4, 1 / 4, 0]),
        (metrics.precision, 8, [2 / 8, 0, 3 / 8, 1 / 8, 0]),
        (metrics.precision_capped, 1, [1, 0, 1, 0, 0]),
        (metrics.precision_capped, 4, [1, 0, 3 / 4, 1, 0]),
        (metrics.precision_capped, 8, [1, 0, 3 / 5, 1, 0]),
        (metrics.precision_irgen, 1, [1, 0, 1, 0, 0]),
        (metrics.precision_irgen, 2, [1 / 2, 0, 1, 1 / 2, 0]),
        (metrics.precision_irgen, 4, [2 / 3, 0, 3 / 4, 1 / 4, 0]),
        (metrics.hit_rate, 1, [1, 0, 1, 0, 0]),
        (metrics.hit_rate, 2, [1, 0, 1, 1, 0]),
        (metrics.recall, 4, [1, 0, 3 / 5, 1, 0]),
    ],
)
def test_metrics_at_a_cutoff_are_what_a_hand_computes(metric, k, expected):
    assert metric(HITS, POSITIVES, k) == pytest.approx(np.array(expected, dtype=float))


def test_average_precision_at_r_is_what_a_hand_computes():
    expected = [(1 / 1) / 2, 0, (1 / 1 + 2 / 2 + 3 / 4) / 5, 0, 0]
    assert metrics.average_precision_at_r(HITS, POSITIVES) == pytest.approx(np.array(expected))


def test_in_shop_textbook_precision_is_capped_by_its_three_positives_and_irgens_is_not():
    hits, positives = np.array([[True] * 3 + [False] * 7]), np.array([3])
    assert metrics.precision(hits, positives, 10) == pytest.approx([0.3])
    assert metrics.precision_capped(hits, positives, 10) == pytest.approx([1.0])
    assert metrics.precision_irgen(hits, positives, 10) == pytest.approx([1.0])


def test_a_query_without_a_positive_is_counted_and_left_out_of_the_means():
    without = metrics.summarise(HITS[:4], POSITIVES[:4], [4])
    assert metrics.summarise(HITS, POSITIVES, [4]) == without
    assert metrics.count_queries(POSITIVES) == {"count": 5, "without_positive": 1}


@pytest.mark.parametrize("queries", [0, 2])
def test_no_query_with_a_positive_gives_zeros_not_nans(queries):
    summary = metrics.summarise(np.zeros((queries, 3), bool), np.zeros(queries, int), [1, 10])
    assert set(summary.values()) == {0.0}


def test_summary_has_every_metric_at_every_cutoff():
    summary = metrics.summarise(HITS, POSITIVES, (1, 10))
    names = ("precision", "precision_capped", "precision_irgen", "hit", "recall")
    assert set(summary) == {f"{name}/{k}" for name in names for k in (1, 10)} | {"map/R"}


def test_precision_curve_is_the_summarys_precision_at_every_k():
    summary = metrics.summarise(HITS, POSITIVES, range(1, 7))
    expected = [summary[f"precision/{k}"] for k in range(1, 7)]
    assert metrics.precision_curve(HITS, POSITIVES, 6) == expected


def test_more_hits_than_positives_is_a_bug_of_the_caller():
    with pytest.raises(AssertionError, match="counted twice"):
        metrics.precision(np.ones((1, 3), bool), np.array([2]), 3)


@st.composite
def rankings(draw):
    """hits (Q, k) with positives (Q,) that allow for them."""
    shape = draw(st.tuples(st.integers(1, 6), st.integers(1, 12)))
    hits = draw(arrays(bool, shape))
    missing = draw(arrays(np.int64, shape[0], elements=st.integers(0, 5)))
    return hits, hits.sum(axis=1) + missing


@settings(max_examples=60, deadline=None)
@given(rankings(), st.integers(1, 15))
def test_every_metric_lies_between_zero_and_one(ranking, k):
    hits, positives = ranking
    values = [metric(hits, positives, k) for metric in EVERY]
    values.append(metrics.average_precision_at_r(hits, positives))
    for value in values:
        assert value.shape == positives.shape
        assert ((value >= 0) & (value <= 1 + 1e-12)).all()


@settings(max_examples=60, deadline=None)
@given(rankings(), st.integers(1, 15))
def test_hit_and_recall_never_fall_with_k_and_capping_never_lowers_precision(ranking, k):
    hits, positives = ranking
    for metric in (metrics.hit_rate, metrics.recall):
        assert (metric(hits, positives, k + 1) >= metric(hits, positives, k)).all()
    plain = metrics.precision(hits, positives, k)
    assert (metrics.precision_capped(hits, positives, k) >= plain).all()
    assert (metrics.precision_irgen(hits, positives, k) >= plain).all()


@settings(max_examples=60, deadline=None)
@given(rankings(), st.integers(1, 15), st.randoms(use_true_random=False))
def test_order_of_queries_and_padding_of_lists_do_not_matter(ranking, k, random):
    hits, positives = ranking
    order = random.sample(range(len(hits)), len(hits))
    padded = np.pad(hits, ((0, 0), (0, 3)))
    for metric in EVERY:
        values = metric(hits, positives, k)
        assert (metric(hits[order], positives[order], k) == values[order]).all()
        assert (metric(padded, positives, k) == values).all()
    values = metrics.average_precision_at_r(hits, positives)
    assert metrics.average_precision_at_r(padded, positives) == pytest.approx(values)


@settings(max_examples=100, deadline=None)
@given(rankings())
def test_average_precision_at_r_is_one_exactly_if_the_first_r_are_hits(ranking):
    hits, positives = ranking
    full = metrics.average_precision_at_r(hits, positives) > 1 - 1e-9
    top = np.array([r > 0 and row[:r].sum() == r for row, r in zip(hits, positives, strict=True)])
    assert (full == top).all()


def random_lists(seed, Q=12, N=40, D=3, labels=4):
    """Random points: their labels, and the whole database ranked for every query."""
    generator = np.random.default_rng(seed)
    queries, database = generator.normal(size=(Q, D)), generator.normal(size=(N, D))
    query_labels = generator.integers(labels, size=Q)
    database_labels = generator.integers(labels, size=N)
    distances = ((queries[:, None] - database) ** 2).sum(-1)  # (Q, N)
    ranked = database_labels[distances.argsort(axis=1)]  # (Q, N)
    hits = ranked == query_labels[:, None]
    return (queries, query_labels), (database, database_labels), hits


@pytest.mark.parametrize("seed", range(3))
def test_map_at_r_and_precision_at_1_agree_with_pytorch_metric_learning(seed):
    (queries, query_labels), (database, database_labels), hits = random_lists(seed)
    names = ("mean_average_precision_at_r", "precision_at_1", "r_precision")
    calculator = AccuracyCalculator(include=names, k="max_bin_count", device=torch.device("cpu"))
    expected = calculator.get_accuracy(
        torch.tensor(queries, dtype=torch.float32),
        torch.tensor(query_labels),
        torch.tensor(database, dtype=torch.float32),
        torch.tensor(database_labels),
        ref_includes_query=False,
    )
    positives = hits.sum(axis=1)
    summary = metrics.summarise(hits, positives, [1])
    assert summary["map/R"] == pytest.approx(expected["mean_average_precision_at_r"], abs=1e-6)
    assert summary["precision/1"] == pytest.approx(expected["precision_at_1"], abs=1e-6)
    at_r = [metrics.recall(hits[[i]], positives[[i]], r)[0] for i, r in enumerate(positives) if r]
    assert np.mean(at_r) == pytest.approx(expected["r_precision"], abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_average_precision_agrees_with_scikit_learn_where_all_hits_are_within_r(seed):
    generator = np.random.default_rng(seed)
    first = np.sort(generator.permuted(np.tile([True] * 6 + [False] * 2, (5, 1)), axis=1))[:, ::-1]
    hits = np.concatenate([first, np.zeros((5, 4), bool)], axis=1)  # (5, 12), the hits on top
    expected = [average_precision_score(row, -np.arange(12)) for row in hits]
    assert metrics.average_precision_at_r(hits, np.full(5, 6)) == pytest.approx(np.array(expected))


@pytest.mark.parametrize("seed", range(3))
def test_average_precision_at_r_is_scikit_learns_on_the_first_r_times_their_recall(seed):
    *_, hits = random_lists(seed)
    for row, r in zip(hits, hits.sum(axis=1), strict=True):
        top = row[:r]
        part = average_precision_score(top, -np.arange(r)) * top.sum() / r if top.any() else 0.0
        assert metrics.average_precision_at_r(row[None], np.array([r]))[0] == pytest.approx(part)


def test_means_are_those_of_the_queries() -> None:
    generator = np.random.default_rng(5)
    hits = generator.random((40, 20)) < 0.3
    positives = hits.sum(axis=1) + generator.integers(0, 5, 40)
    per_query = metrics.by_query(hits[positives > 0], positives[positives > 0], [1, 10])
    means = metrics.summarise(hits, positives, [1, 10])
    assert means == {name: pytest.approx(values.mean()) for name, values in per_query.items()}


def test_the_recall_curve_is_interpolated_as_trec_does() -> None:
    hits = np.array([[False, True, True, False, True, False, False, False]])
    curve = dict(zip(metrics.RECALLS, metrics.recall_curve(hits, np.array([4])), strict=True))
    assert curve[0.25] == curve[0.5] == pytest.approx(2 / 3), "at rank 3, though found at rank 2"
    assert curve[0.75] == pytest.approx(3 / 5)
    assert curve[0.8] == curve[1.0] == 0, "the fourth is never found"


def test_the_recall_curve_never_rises_and_is_one_for_a_perfect_list() -> None:
    generator = np.random.default_rng(6)
    hits = generator.random((30, 40)) < 0.2
    curve = metrics.recall_curve(hits, hits.sum(axis=1))
    assert all(later <= earlier + 1e-12 for earlier, later in pairwise(curve))
    perfect = np.arange(10)[None] < np.array([[4], [7]])
    assert metrics.recall_curve(perfect, np.array([4, 7])) == [1.0] * len(metrics.RECALLS)
    assert metrics.recall_curve(np.zeros((2, 0), bool), np.array([0, 0])) == [0.0] * 20


def test_agreement_is_the_share_of_the_others_first_k_that_are_among_the_first_k():
    ids = np.array([[3, 1, 2], [9, 8, -1], [-1, -1, -1]])
    nearest = np.array([[1, 2, 3], [7, 9, 5], [4, -1, -1]])
    shares = metrics.agreement(ids, nearest, [1, 2, 3, 10])
    assert shares == {
        "agreement/1": 0.0,
        "agreement/2": pytest.approx((1 + 1 + 0) / 5),
        "agreement/3": pytest.approx((3 + 1 + 0) / 7),
        "agreement/10": pytest.approx((3 + 1 + 0) / 7),
    }
    assert metrics.agreement(ids, ids, [3]) == {"agreement/3": 1.0}
    assert metrics.agreement(ids[:0], ids[:0], [3]) == {"agreement/3": 0.0}
