"""Probabilities of labels add up to 1; the nearest image has most votes, and a copy none; the first
page is worth most."""

import math

import pytest
import torch

from irgen.search.ranking import NEAREST
from irgen.search.relevance import Ranked, Ranker, rank_candidates, weigh_votes

from ..small_index import RANKING

NEW = 2  # the first number of a label that was not taught


def rank_one(
    kinds: list[int],
    cosines: list[float],
    label_probs: list[float],
    hedge: float = 0.0,
    trained: list[bool] | None = None,
    labelled: list[bool] | None = None,
) -> Ranked:
    """Rank candidates, one a row, of one query. ``trained``: by default all; ``labelled``: by
    default nothing may be known of copies."""
    rows = torch.arange(len(kinds))[None]
    near = torch.tensor([cosines])
    known = None if labelled is None else torch.tensor(labelled)
    trained = trained or [True] * len(kinds)
    ranker = Ranker(RANKING, torch.tensor(kinds), torch.tensor(trained), known)
    return rank_candidates(ranker, rows, near, near >= 0.999, torch.tensor([label_probs]), hedge)


def rank(kinds: list[int], cosines: list[float], label_probs: list[float], hedge: float = 0.0):
    """Rank candidates, one a row, of one query; return probabilities and the order of the rows."""
    ranked = rank_one(kinds, cosines, label_probs, hedge)
    order = ranked.sort_keys.argsort(dim=1, descending=True, stable=True)
    return ranked.probabilities[0], order[0].tolist()


def test_the_probabilities_are_those_of_the_formula() -> None:
    kinds, cosines = [0, 1, NEW, NEW], [0.9, 0.8, 0.7, 0.6]
    probabilities, _ = rank(kinds, cosines, [0.7, 0.3])
    every = torch.ones(1, 4, dtype=torch.bool)
    first, second, third, fourth = weigh_votes(every, every)[0].tolist()
    logits = [
        1.2 * math.log(0.7) + 0.3 * math.log(first + 0.1),
        1.2 * math.log(0.3) + 0.3 * math.log(second + 0.1),
        1.7 * math.log(third + fourth + 0.1) - 2.2,
    ]
    expected = torch.tensor(logits).softmax(0)
    torch.testing.assert_close(probabilities, expected[[0, 1, 2, 2]])
    untaught = rank_one(kinds, cosines, [0.7, 0.3]).untaught
    torch.testing.assert_close(untaught, expected[2:])


def test_votes_fall_with_the_rank_and_an_image_that_is_not_trained_on_has_twice_as_many() -> None:
    trained = torch.tensor([[True, True, False, True], [True, True, True, True]])
    votes = weigh_votes(trained, torch.tensor([[True] * 4, [True, True, False, False]]))
    torch.testing.assert_close(votes.sum(1), torch.full((2,), float(NEAREST)))
    torch.testing.assert_close(votes[:, 0] / votes[:, 1], torch.full((2,), 2**1.5))
    torch.testing.assert_close(votes[0, 2] / votes[0, 0], torch.tensor(2 / 3**1.5))
    assert votes[1, 2:].tolist() == [0, 0]


def test_the_nearest_image_and_one_that_is_not_trained_on_speak_louder_for_their_label() -> None:
    cosines = [0.9 - 0.01 * n for n in range(10)]
    first, _ = rank([0] + [1] * 3 + [NEW] * 6, cosines, [0.5, 0.5])
    later, _ = rank([1] * 3 + [0] + [NEW] * 6, cosines, [0.5, 0.5])
    assert first[0] > later[3]
    fresh = [False] + [True] * 9
    louder = rank_one([0] + [1] * 3 + [NEW] * 6, cosines, [0.5, 0.5], trained=fresh)
    assert louder.probabilities[0, 0] > first[0]


def test_a_query_of_no_taught_label_is_told_from_others() -> None:
    cosines = [0.9 - 0.01 * n for n in range(12)]
    new, old = (rank_one([kind] * 12, cosines, [0.6, 0.4]).untaught.item() for kind in (NEW, 0))
    assert new > 0.5 > 0.01 > old


def test_a_query_whose_neighbours_are_of_a_new_label_goes_by_them() -> None:
    kinds = [NEW] * 10 + [0] * 5
    cosines = [0.9 - 0.01 * n for n in range(15)]
    probabilities, order = rank(kinds, cosines, [0.6, 0.4])
    assert order == list(range(15)) and probabilities[0] > 0.5 > probabilities[10]


def test_within_a_label_the_nearest_comes_first() -> None:
    _, order = rank([0, 1, 0, 1], [0.1, 0.9, 0.2, 0.8], [0.9, 0.1])
    assert order == [2, 0, 1, 3]


def test_a_hedge_gives_the_second_label_a_place_at_the_end_of_the_first_ten() -> None:
    kinds = [0] * 12 + [1] * 3
    cosines = [0.8] + [0.5 - 0.01 * n for n in range(11)] + [0.7, 0.6, 0.3]
    _, plain = rank(kinds, cosines, [0.6, 0.4])
    assert plain == list(range(15))
    _, hedged = rank(kinds, cosines, [0.6, 0.4], hedge=1.0)
    assert hedged == [*range(9), 12, 9, 10, 11, 13, 14]


@pytest.mark.parametrize("hedge", [0.0, 5.0])
def test_a_copy_comes_first_and_neither_votes_nor_takes_a_place(hedge: float) -> None:
    kinds = [1] + [0] * 11 + [1] * 2
    cosines = [1.0] + [0.9 - 0.01 * n for n in range(11)] + [0.2, 0.1]
    with_copy, order = rank(kinds, cosines, [0.6, 0.4], hedge)
    without, plain = rank(kinds[1:], cosines[1:], [0.6, 0.4], hedge)
    assert order == [0, *(row + 1 for row in plain)]
    torch.testing.assert_close(with_copy[1:], without)
    assert with_copy[0] == 1


def test_no_candidate_has_no_probability() -> None:
    rows, cosines = torch.tensor([[0, -1]]), torch.tensor([[0.5, -torch.inf]])
    ranker = Ranker(RANKING, torch.tensor([0]), torch.tensor([True]))
    label_probs = torch.tensor([[0.5, 0.5]])
    ranked = rank_candidates(ranker, rows, cosines, cosines >= 0.999, label_probs, 1.0)
    assert ranked.probabilities[0, 1] == 0 and ranked.sort_keys[0, 1] == -torch.inf


def test_a_copy_of_a_labelled_image_has_its_label_whatever_the_classifier_says():
    kinds, cosines, read = [0, 1, 1, 0, NEW], [1.0, 0.9, 0.8, 0.7, 0.6], [0.01, 0.99]
    unread = rank_one(kinds, cosines, read, hedge=20.0)
    assert unread.probabilities[0, 1] > 0.9 > unread.probabilities[0, 3]
    told = rank_one(kinds, cosines, read, hedge=20.0, labelled=[True] * 5)
    assert (
        told.probabilities[0, [0, 3]].min() > 0.998
        and told.probabilities[0, [1, 2, 4]].max() < 1e-3
    )
    order = told.sort_keys[0].argsort(descending=True).tolist()
    assert order == [0, 3, 1, 2, 4], "the copy, its label's, then the others as they were"
    assert told.untaught[0] < 1e-3


def test_copies_with_different_labels_share_the_query_and_one_of_no_taught_label_is_told():
    kinds, cosines = [0, NEW, 1, NEW], [1.0, 0.9995, 0.9, 0.8]
    told = rank_one(kinds, cosines, [0.5, 0.5], labelled=[True] * 4)
    assert told.probabilities[0, 3] == pytest.approx(0.4995, abs=1e-3)
    assert told.untaught[0] == pytest.approx(0.4995, abs=1e-3)


def test_a_copy_without_a_label_changes_nothing():
    kinds, cosines, read = [0, 1, 1], [1.0, 0.9, 0.8], [0.1, 0.9]
    unread = rank_one(kinds, cosines, read)
    told = rank_one(kinds, cosines, read, labelled=[False, True, True])
    assert torch.equal(told.probabilities, unread.probabilities)
    assert torch.equal(told.sort_keys, unread.sort_keys)
    assert torch.equal(told.untaught, unread.untaught)
