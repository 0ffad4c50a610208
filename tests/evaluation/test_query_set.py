"""Which results are relevant, and how deep to search."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from irgen.evaluation import query_set

INF = np.float32(np.inf)


def test_a_result_is_relevant_if_it_carries_the_querys_label_and_padding_never_is():
    relevant = query_set.mark_relevant(
        np.array([[2, 0, -1], [1, -1, -1]]), ["a", "c"], ["a", "c", "b"]
    )
    assert relevant.tolist() == [[False, True, False], [True, False, False]]


def test_a_query_with_an_unknown_label_or_none_has_nothing_relevant():
    relevant = query_set.mark_relevant(np.array([[0, 1, -1], [0, 1, -1]]), ["z", None], ["a", None])
    assert not relevant.any()
    assert query_set.count_positives(["z", None], ["x", "y"], ["a", None], ["u", "v"]).tolist() == [
        0,
        0,
    ]


def test_an_empty_database_gives_no_relevance():
    assert query_set.mark_relevant(np.full((1, 2), -1), ["a"], []).tolist() == [[False, False]]
    assert query_set.count_positives(["a"], ["x"], [], []).tolist() == [0]


def test_positives_do_not_count_copies_of_the_query():
    counts = query_set.count_positives(
        ["a", "b", "a"], ["x", "y", "other"], ["a", "a", "b", "a"], ["x", "x", "y", "w"]
    )
    assert counts.tolist() == [1, 0, 3]


def test_a_query_never_counts_itself_and_the_gap_closes():
    ids = np.array([[3, 0, 1, 2], [2, 3, -1, -1]])
    scores = np.array([[0.9, 0.8, 0.7, 0.6], [0.5, 0.4, -INF, -INF]], dtype=np.float32)
    new_ids, new_scores = query_set.drop_self(ids, scores, ["q", "w"], ["u", "v", "w", "q"], 3)
    assert new_ids.tolist() == [[0, 1, 2], [3, -1, -1]]
    assert np.allclose(new_scores[0], [0.8, 0.7, 0.6])
    assert new_scores[1].tolist() == [np.float32(0.4), -np.inf, -np.inf]
    assert (new_ids.dtype, new_scores.dtype) == (np.int64, np.float32)


def test_lists_shorter_than_k_are_padded():
    ids, scores = query_set.drop_self(np.array([[0]]), np.ones((1, 1), np.float32), ["q"], ["u"], 3)
    assert ids.tolist() == [[0, -1, -1]]
    assert scores.tolist() == [[1.0, -np.inf, -np.inf]]


def test_search_depth_makes_room_for_some_copies_and_not_for_any_number():
    assert query_set.search_depth(2, ["x"], ["x"] * 99) == 101
    assert query_set.search_depth(2, ["x"], ["x"] * 10_000) == 2 + query_set.MAX_COPIES == 102


def test_search_depth_leaves_k_after_the_query_is_removed():
    hashes = ["x", "x", "y", "z"]
    depth = query_set.search_depth(2, ["x", "n"], hashes)
    assert depth == 4
    ids = np.array([[0, 1, 2, 3]])
    kept, _ = query_set.drop_self(ids, np.zeros((1, 4), np.float32), ["x"], hashes, 2)
    assert kept.tolist() == [[2, 3]]


@st.composite
def results(draw):
    """Padded ids and scores (Q, k) over a database of 9."""
    Q, k = draw(st.integers(1, 5)), draw(st.integers(1, 6))
    ids = np.full((Q, k), -1, np.int64)
    for row in ids:
        rows = draw(st.lists(st.integers(0, 8), max_size=k, unique=True))
        row[: len(rows)] = rows
    scores = np.where(ids >= 0, -np.arange(k, dtype=np.float32) / 3, -INF).astype(np.float32)
    return ids, scores


@settings(max_examples=40, deadline=None)
@given(results(), st.integers(1, 7))
def test_drop_self_is_filtering_each_list_in_plain_python(result, k):
    ids, scores = result
    database, queries = list("abcabcabx"), list("abcxz")[: len(ids)]
    filtered, _ = query_set.drop_self(ids, scores, queries, database, k)
    for query, before, after in zip(queries, ids, filtered, strict=True):
        kept = [i for i in before if i >= 0 and database[i] != query][:k]
        assert after.tolist() == kept + [-1] * (k - len(kept))


def test_where_queries_are_the_database_each_is_judged_by_all_others() -> None:
    """Leave-one-out, as on the unseen classes of CUB, Cars and Products."""
    labels, hashes = ["a", "a", "a", "b", "b"], ["1", "2", "3", "4", "5"]
    counts = query_set.count_positives(labels, hashes, labels, hashes)
    assert counts.tolist() == [2, 2, 2, 1, 1]
    depth = query_set.search_depth(2, hashes, hashes)
    assert depth == 3
    ids_with_self = np.array(
        [[row, (row + 1) % 5, (row + 2) % 5] for row in range(5)]
    )  # itself first
    ids, _ = query_set.drop_self(
        ids_with_self, np.zeros(ids_with_self.shape, np.float32), hashes, hashes, 2
    )
    assert ids.tolist() == [[1, 2], [2, 3], [3, 4], [4, 0], [0, 1]]
    assert query_set.mark_relevant(ids, labels, labels).sum(axis=1).tolist() == [2, 1, 0, 1, 0]
