"""Clusters in place of labels."""

import itertools

import torch
from hypothesis import given
from hypothesis import strategies as st

from irgen.models.clusters import cluster, match_numbers


def test_clusters_that_are_apart_are_found():
    labels = torch.arange(90) % 5
    generator = torch.Generator().manual_seed(0)
    centres = 20 * torch.randn(5, 4, generator=generator)
    vectors = centres[labels] + torch.randn(90, 4, generator=generator)
    clusters = cluster(vectors, 5, 20, seed=0)
    assert len(torch.stack([clusters, labels], 1).unique(dim=0)) == 5
    assert torch.equal(clusters, cluster(vectors, 5, 20, seed=0))


def test_a_permutation_of_the_numbers_is_undone():
    old = torch.randint(6, (80,), generator=torch.Generator().manual_seed(0))
    assert torch.equal(match_numbers(torch.randperm(6)[old], old, 6), old)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30))
def test_no_other_numbering_keeps_more_images(pairs):
    new, old = torch.tensor(pairs).T
    matched = match_numbers(new, old, 4)
    kept = int((matched == old).sum())
    every = [
        int((torch.tensor(names)[new] == old).sum()) for names in itertools.permutations(range(4))
    ]
    assert kept == max(every)
    assert len(torch.stack([new, matched], 1).unique(dim=0)) == len(new.unique())
