"""The confusions that cost most."""

import numpy as np
import pytest

from irgen.evaluation import metrics, runs
from irgen.evaluation.query_set import RankedLists, mark_relevant
from irgen.report.confusions import confusions

DATABASE = ["cat", "cat", "dog", "dog", "emu"]
QUERIES = ["cat", "dog", "cat"]
IDS = np.array([[0, 2, 3], [4, 2, 3], [2, 1, -1]])


def run():
    scores = np.where(IDS >= 0, 0.5, -np.inf).astype(np.float32)
    relevant = mark_relevant(IDS, QUERIES, DATABASE)
    return runs.to_table(RankedLists(IDS, scores), relevant, np.zeros((5, 2), np.int64))


def test_the_dearest_pair_comes_first_with_its_share_of_precision():
    pairs = confusions(run(), QUERIES, DATABASE, k=3, n=5)
    assert pairs.rows() == [
        ("cat", "dog", 3, 2, pytest.approx(3 / 9)),
        ("dog", "emu", 1, 1, pytest.approx(1 / 9)),
    ]


def test_costs_and_empty_places_make_up_what_precision_lacks():
    cost = confusions(run(), QUERIES, DATABASE, k=3, n=5)["cost"].sum()
    relevant = mark_relevant(IDS, QUERIES, DATABASE)
    precision = metrics.precision(relevant, np.array([2, 2, 2]), 3).mean()
    empty = (IDS < 0).sum() / 9
    assert precision + cost + empty == pytest.approx(1)


def test_only_the_first_k_ranks_and_n_pairs_count():
    assert confusions(run(), QUERIES, DATABASE, k=1, n=1).rows()[0][:3] == ("cat", "dog", 1)
    assert confusions(run().clear(), QUERIES, DATABASE, k=3, n=5).height == 0


def test_a_query_without_a_label_takes_nothing_for_anything_else():
    run = runs.to_table(
        RankedLists(np.array([[0, 1], [0, 1]]), np.zeros((2, 2), np.float32)),
        np.zeros((2, 2), dtype=bool),
        np.zeros((2, 1), dtype=np.int64),
    )
    pairs = confusions(run, [None, "a"], ["b", None], 2, 9)
    assert pairs.select("query_label", "result_label", "misses").rows() == [
        ("a", None, 1),
        ("a", "b", 1),
    ]
