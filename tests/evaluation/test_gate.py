"""The rule of the gate, checked by hand."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from irgen.evaluation import gate
from irgen.evaluation.gate import Answers
from irgen.params import Gate

SETTINGS = Gate(metric="precision/1", margin=0.02, minimum=0.3)


def answers(right: int, of: int = 100) -> Answers:
    """One result a query, of which the first so many are right."""
    return Answers((np.arange(of) < right)[:, None], np.full(of, 5))


def judged(candidate: int, champion: int | None, settings: Gate = SETTINGS) -> gate.Verdict:
    other = None if champion is None else answers(champion)
    return gate.judge(answers(candidate), other, settings, (1, 2))


@pytest.mark.parametrize(
    ("candidate", "champion", "passed", "why"),
    [
        (95, 90, True, "precision/1 is 0.950, 0.050 ± 0.022 better than the champion's 0.900"),
        (90, 90, True, "precision/1 is 0.900, as the champion's"),
        (89, 90, True, "0.890, 0.010 ± 0.010 worse than the champion's 0.900, which gate.margin"),
        (88, 90, True, "which gate.margin 0.020 allows"),  # the very margin
        (87, 90, False, "0.870, 0.030 ± 0.017 worse than the champion's 0.900; gate.margin allows"),
        (29, 30, False, "0.290, 0.010 ± 0.010 worse than the champion's 0.300 and below gate.min"),
        (29, 28, True, "better than the champion's 0.280"),  # what is better need not be good
        (29, 29, True, "as the champion's"),
        (30, None, True, "precision/1 is 0.300, above gate.minimum 0.300"),
        (29, None, False, "precision/1 is 0.290, below gate.minimum 0.300"),
    ],
)
def test_a_candidate_passes_unless_it_is_worse_than_it_may_be(candidate, champion, passed, why):
    verdict = judged(candidate, champion)
    assert verdict.passed == passed
    assert why in verdict.why


def test_the_figures_are_of_both_at_every_cutoff_and_survive_json():
    verdict = judged(87, 90)
    record = json.loads(json.dumps(verdict.to_json()))
    assert record["passed"] is False and record["why"] == verdict.why
    assert record["figures"] == {
        "metric": "precision/1",
        "margin": 0.02,
        "minimum": 0.3,
        "queries": 100,
        "without_positive": 0,
        "candidate": {"precision/1": 0.87, "precision/2": 0.435, "hit/1": 0.87, "hit/2": 0.87},
        "champion": {"precision/1": 0.9, "precision/2": 0.45, "hit/1": 0.9, "hit/2": 0.9},
        "difference": pytest.approx(-0.03),
        "error": pytest.approx(np.sqrt(0.03 * 0.97 / 99)),
    }


def test_queries_that_nothing_answers_do_not_count_and_alone_let_nothing_pass():
    hits, none = np.ones((4, 1), bool), np.zeros(4, np.int64)
    hits[2:] = False
    half = Answers(hits, np.array([1, 1, 0, 0]))
    assert gate.judge(half, None, SETTINGS, (1,)).figures["candidate"]["precision/1"] == 1
    empty = Answers(np.zeros((4, 1), bool), none)
    for champion in (None, empty):
        verdict = gate.judge(empty, champion, SETTINGS, (1,))
        assert not verdict.passed
        assert "none of the 4 queries has a relevant image" in verdict.why
        json.dumps(verdict.to_json())


HITS = arrays.arrays(bool, (8, 3))


@given(HITS)
def test_an_index_always_passes_against_itself(hits):
    one = Answers(hits, np.full(8, 3))
    assert gate.judge(one, one, replace(SETTINGS, margin=0.0), (1, 3)).passed


@given(HITS, HITS, st.integers(0, 7), st.integers(0, 2))
def test_one_more_right_answer_never_makes_a_candidate_fail(hits, others, query, rank):
    champion, better = Answers(others, np.full(8, 3)), hits.copy()
    better[query, rank] = True
    settings = replace(SETTINGS, metric="precision/3", margin=0.1)
    before = gate.judge(Answers(hits, np.full(8, 3)), champion, settings, (3,))
    after = gate.judge(Answers(better, np.full(8, 3)), champion, settings, (3,))
    assert after.passed or not before.passed
