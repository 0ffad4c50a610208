"""Figures of new images: by hand, and as identities of sets and counts."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from irgen.evaluation import drift
from irgen.evaluation.drift import LabelledCodes
from irgen.models import quantizer

SHAPE = st.tuples(st.integers(1, 30), st.just(3))
CODES = arrays.arrays(np.int64, SHAPE, elements=st.integers(0, 3))


def coded(codes, labels="", residuals=None):
    codes = np.array(codes)
    names = np.array([ord(label) for label in labels or "a" * len(codes)], np.int64)
    left = np.zeros(codes.shape) if residuals is None else np.array(residuals, dtype=float)
    return LabelledCodes(codes=codes, residuals=left, labels=names)


def test_what_codes_leave_over_is_the_squared_distance_to_each_prefix_of_their_reconstruction():
    generator = torch.Generator().manual_seed(0)
    books = torch.randn(3, 5, 4, generator=generator)
    vectors = torch.nn.functional.normalize(torch.randn(20, 4, generator=generator), dim=-1)
    codes = quantizer.encode(vectors, books)
    far = (vectors[:, None] - quantizer.decode(codes, books)).square().sum(-1)
    residuals = drift.compute_residuals(vectors.numpy(), codes.numpy(), books.numpy())
    np.testing.assert_allclose(residuals, far.numpy(), atol=1e-6)
    doubled = drift.compute_residuals(2 * vectors.numpy(), codes.numpy(), 2 * books.numpy())
    np.testing.assert_allclose(doubled, residuals, atol=1e-6)  # it is relative


@given(CODES)
def test_two_images_have_one_prefix_number_if_and_only_if_their_first_codes_are_equal(codes):
    numbers = drift.number_prefixes(codes)
    for m in range(3):
        of_prefix = {}
        for row, number in zip(codes[:, : m + 1].tolist(), numbers[:, m].tolist(), strict=True):
            assert of_prefix.setdefault(tuple(row), number) == number
        assert len(set(of_prefix.values())) == len(of_prefix)


def test_prefixes_of_large_codebooks_and_many_levels_do_not_overflow():
    codes = np.full((2, 16), 65535)
    codes[1, 15] = 65534
    numbers = drift.number_prefixes(codes)
    assert (numbers[0, :15] == numbers[1, :15]).all()
    assert numbers[0, 15] != numbers[1, 15]


@given(CODES, CODES)
def test_a_prefix_is_unseen_if_no_training_image_begins_like_it(new, trained):
    unseen = drift.mark_unseen_prefixes(new, trained)
    for m in range(3):
        trained_prefixes = {tuple(row) for row in trained[:, : m + 1].tolist()}
        expected = [tuple(row) not in trained_prefixes for row in new[:, : m + 1].tolist()]
        assert unseen[:, m].tolist() == expected
    assert (unseen[:, :-1] <= unseen[:, 1:]).all()
    assert (
        drift.mark_unseen_codes(new, trained) <= unseen
    ).all()  # an unseen code: an unseen prefix


@given(CODES)
def test_training_images_are_unseen_to_none_of_themselves(codes):
    assert not drift.mark_unseen_prefixes(codes, codes).any()


@given(CODES)
def test_buckets_are_counts_of_whole_codes(codes):
    counts = Counter(map(tuple, codes.tolist()))
    assert drift.count_code_group(codes).tolist() == [
        counts[tuple(code)] for code in codes.tolist()
    ]


@given(CODES, CODES, st.data())
def test_an_image_collides_if_its_code_group_holds_another_label(codes, others, data):
    def labelled(table):
        names = st.lists(st.sampled_from("ab"), min_size=len(table), max_size=len(table))
        return coded(table, data.draw(names))

    images, among = labelled(codes), labelled(others)
    rows = list(zip(others.tolist(), among.labels, strict=True))
    mine = zip(codes.tolist(), images.labels, strict=True)
    expected = [any(c == d and a != b for d, b in rows) for c, a in mine]
    assert drift.mark_collisions(images, among).tolist() == expected


TRAINED = coded([[0, 0], [0, 1], [1, 0], [1, 0]], "aabb", [[0.4, 0.2]] * 4)
HELD_OUT = coded([[0, 0], [1, 1]], "ba", [[0.5, 0.25], [0.7, 0.25]])
DATABASE = coded([[0, 0], [0, 1], [1, 0], [1, 0], [1, 0], [2, 0]], "aabbac", [[0.4, 0.6]] * 6)


def test_the_figures_of_a_small_database_are_those_counted_by_hand():
    new = np.array([False] * 4 + [True] * 2)
    figures = drift.measure_drift(TRAINED, HELD_OUT, DATABASE, new)
    expected = {
        "images/trained": 4,
        "images/held_out": 2,
        "images/database": 6,
        "images/new": 2,
        "residual/trained/level_1": 0.4,
        "residual/trained/level_2": 0.2,
        "residual/held_out/level_1": 0.6,
        "residual/held_out/level_2": 0.25,
        "residual/new/level_1": 0.4,
        "residual/new/level_2": 0.6,
        "unseen/codes/held_out/level_1": 0,
        "unseen/codes/held_out/level_2": 0,
        "unseen/codes/new/level_1": 0.5,  # 2 of [2, 0]
        "unseen/codes/new/level_2": 0,
        "unseen/prefixes/held_out/level_1": 0,
        "unseen/prefixes/held_out/level_2": 0.5,  # [1, 1]
        "unseen/prefixes/new/level_1": 0.5,
        "unseen/prefixes/new/level_2": 0.5,
        "unseen/labels": 0.5,  # c
        "collisions/held_out": 0.5,  # the b at [0, 0]
        "collisions/new": 0.5,  # the a at [1, 0]
        "collisions/before": 0,
        "collisions/now": 0.5,  # the three at [1, 0]
        "code_groups/before/mean": 1.5,
        "code_groups/before/p99": 2,
        "code_groups/before/max": 2,
        "code_groups/now/mean": 2,  # 1, 1, 3, 3, 3, 1
        "code_groups/now/p99": 3,
        "code_groups/now/max": 3,
    }
    assert figures.keys() == expected.keys()
    assert figures == pytest.approx(expected)


def test_without_new_images_the_figures_of_the_others_are_still_told():
    figures = drift.measure_drift(TRAINED, HELD_OUT, DATABASE, np.zeros(6, bool))
    assert figures["images/new"] == 0
    assert not [name for name in figures if "new/" in name or name == "unseen/labels"]
    assert figures["code_groups/now/mean"] == figures["code_groups/before/mean"] == 2


def test_without_held_out_images_or_older_ones_in_the_database_what_can_be_told_is():
    figures = drift.measure_drift(
        TRAINED, HELD_OUT.take(np.zeros(2, bool)), DATABASE, np.ones(6, bool)
    )
    assert figures["images/held_out"] == 0 and figures["images/new"] == 6
    assert not [name for name in figures if "held_out/" in name or "before" in name]
    assert figures["unseen/labels"] == pytest.approx(1 / 6)


def test_old_and_new_queries_are_averaged_apart_and_those_without_an_answer_left_out():
    hits = np.array([[True, False], [True, True], [False, False], [False, True], [False, False]])
    positives = np.array([1, 5, 0, 2, 3])
    new = np.array([False, False, False, True, True])
    quality = drift.measure_quality(hits, positives, new, (1, 2))
    assert quality["quality/old/queries"] == 2 and quality["quality/new/queries"] == 2
    assert quality["quality/old/precision/1"] == 1.0
    assert quality["quality/old/precision/2"] == 0.75
    assert quality["quality/old/precision_capped/2"] == 1.0
    assert quality["quality/new/hit/2"] == 0.5
    assert quality["quality/new/precision/1"] == 0.0


def test_a_group_without_a_query_has_its_count_and_no_mean():
    quality = drift.measure_quality(np.ones((1, 1), bool), np.array([1]), np.array([False]), (1,))
    assert {name for name in quality if name.startswith("quality/new")} == {"quality/new/queries"}
    assert quality["quality/new/queries"] == 0
