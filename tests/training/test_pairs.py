import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from irgen.training import neighbours, pairs


def features(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 6, generator=torch.Generator().manual_seed(seed))


def clustered(count: int) -> torch.Tensor:
    """Return vectors (count, 6) around fifty centres."""
    return features(50)[torch.arange(count) % 50] + 0.1 * features(count, seed=1)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=30), st.integers(1, 6))
@settings(max_examples=30, deadline=None)
def test_near_same_label_equals_a_full_comparison(labels, k):
    labels = torch.tensor(labels)
    vectors = features(len(labels))
    mined = pairs.near_same_label(vectors, labels, k, 0)
    rows, scores = mined.rows, mined.cosines
    unit = F.normalize(vectors, dim=-1)
    every = unit @ unit.T
    every[labels[:, None] != labels] = -torch.inf
    every.fill_diagonal_(-torch.inf)
    expected = every.sort(dim=1, descending=True, stable=True).values[:, :k]
    wanted = F.pad(expected, (0, k - expected.shape[1]), value=-torch.inf)
    torch.testing.assert_close(scores, wanted)
    assert torch.equal(rows >= 0, wanted > -torch.inf)
    assert (rows != torch.arange(len(labels))[:, None]).all()


def test_blocks_give_what_one_product_gives(monkeypatch):
    vectors, labels = features(200), torch.zeros(200, dtype=torch.int64)
    whole = pairs.near(vectors, labels, 7, 0).rows
    monkeypatch.setattr(neighbours, "BLOCK", 3)
    blocked = pairs.near(vectors, labels, 7, 0).rows
    assert torch.equal(whole, blocked)


def test_near_looks_across_labels():
    vectors = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
    rows = pairs.near(vectors, torch.tensor([0, 1, 0]), 1, 0).rows
    assert rows.flatten().tolist() == [1, 0, 1]


def test_same_label_draws_others_without_repeats():
    labels = torch.arange(40) % 4
    rows = pairs.same_label(features(40), labels, 5, seed=2).rows
    for row, drawn in enumerate(rows.tolist()):
        assert len(set(drawn)) == 5
        assert row not in drawn
        assert (labels[drawn] == labels[row]).all()
    assert not torch.equal(rows, pairs.same_label(features(40), labels, 5, seed=3).rows)


def test_a_label_with_one_image_has_no_neighbour():
    for rule in (pairs.near_same_label, pairs.same_label):
        mined = rule(features(3), torch.tensor([0, 1, 1]), 2, 0)
        assert mined.rows.tolist() == [[-1, -1], [2, -1], [1, -1]]
        assert mined.cosines[0].tolist() == [-torch.inf, -torch.inf]


def test_of_copies_the_first_others_are_the_neighbours():
    vectors = torch.cat([features(1).expand(50, -1), features(9, seed=1)])
    rows = pairs.near(vectors, torch.zeros(59), 3, 0).rows
    assert rows[:4].tolist() == [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]]
    assert rows[49].tolist() == [0, 1, 2]


def test_a_large_label_draws_different_others_without_listing_them(monkeypatch):
    monkeypatch.setattr(neighbours, "EXACT", 10)
    labels = torch.arange(36) % 3
    mined = pairs.same_label(features(36), labels, 11, seed=2)
    for row, drawn in enumerate(mined.rows.tolist()):
        assert sorted([row, *drawn]) == list(range(row % 3, 36, 3))
    again, other = (pairs.same_label(features(36), labels, 11, seed).rows for seed in (2, 3))
    assert torch.equal(mined.rows, again)
    assert not torch.equal(mined.rows, other)


def test_recall_is_measured_in_the_large_labels_alone(monkeypatch):
    vectors, labels = clustered(3000), (torch.arange(3000) % 30 == 0).long()
    assert pairs.near_same_label(vectors, labels, 5, 0).recall == 1.0
    monkeypatch.setattr(neighbours, "EXACT", 1000)
    mined = pairs.near_same_label(vectors, labels, 5, 0)
    assert mined.recall >= 0.9
    assert (labels[mined.rows] == labels[:, None]).all()
