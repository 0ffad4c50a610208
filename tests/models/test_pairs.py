import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from irgen.models import pairs


def features(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 6, generator=torch.Generator().manual_seed(seed))


@given(st.lists(st.integers(0, 3), min_size=1, max_size=30), st.integers(1, 6))
@settings(max_examples=30, deadline=None)
def test_near_same_label_equals_a_full_comparison(labels, k):
    labels = torch.tensor(labels)
    vectors = features(len(labels))
    rows, scores = pairs.near_same_label(vectors, labels, k, 0)
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
    whole, _ = pairs.near(vectors, labels, 7, 0)
    monkeypatch.setattr(pairs, "BLOCK", 3)
    blocked, _ = pairs.near(vectors, labels, 7, 0)
    assert torch.equal(whole, blocked)


def test_near_looks_across_labels():
    vectors = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
    rows, _ = pairs.near(vectors, torch.tensor([0, 1, 0]), 1, 0)
    assert rows.flatten().tolist() == [1, 0, 1]


def test_same_label_draws_others_without_repeats():
    labels = torch.arange(40) % 4
    rows, _ = pairs.same_label(features(40), labels, 5, seed=2)
    for row, drawn in enumerate(rows.tolist()):
        assert len(set(drawn)) == 5
        assert row not in drawn
        assert (labels[drawn] == labels[row]).all()
    assert not torch.equal(rows, pairs.same_label(features(40), labels, 5, seed=3)[0])


def test_a_label_with_one_image_has_no_neighbour():
    for rule in (pairs.near_same_label, pairs.same_label):
        rows, scores = rule(features(3), torch.tensor([0, 1, 1]), 2, 0)
        assert rows.tolist() == [[-1, -1], [2, -1], [1, -1]]
        assert scores[0].tolist() == [-torch.inf, -torch.inf]
