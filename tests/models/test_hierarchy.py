"""Clusters in clusters: what k-means gives at each node, and nothing else."""

import torch

from irgen.models import hierarchy, quantizer


def blobs(count: int, groups: int = 12) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    centres = 4 * torch.randn(groups, 5, generator=generator)
    return centres[torch.arange(count) % groups] + torch.randn(count, 5, generator=generator)


def test_one_level_is_plain_k_means():
    vectors = blobs(200)
    codes = hierarchy.encode(vectors, hierarchy.fit(vectors, (1, 8), 10, seed=2))
    codebooks, _ = quantizer.fit(vectors, None, (1, 8), 10, seed=2)
    assert torch.equal(codes, quantizer.encode(vectors, codebooks))


def test_the_children_of_a_node_are_the_k_means_clusters_of_its_images_alone():
    vectors = blobs(240)
    deep = hierarchy.encode(vectors, hierarchy.fit(vectors, (3, 4), 10, seed=1))
    assert torch.equal(
        deep[:, :1], hierarchy.encode(vectors, hierarchy.fit(vectors, (1, 4), 10, seed=1))
    )
    for entry in range(4):
        rows = torch.nonzero(deep[:, 0] == entry).flatten()
        own = vectors[rows]
        generator = torch.Generator().manual_seed(1001)
        starts = quantizer.kmeans_start(own, 4, generator)
        centres, _ = quantizer.kmeans(own, starts, 10, generator)
        assert torch.equal(deep[rows, 1], quantizer.assign(own, centres)[0])


def test_deeper_codes_split_clusters_and_never_mix_them():
    vectors = blobs(300)
    codes = hierarchy.encode(vectors, hierarchy.fit(vectors, (4, 3), 10, seed=0))
    distinct = [len(codes[:, : m + 1].unique(dim=0)) for m in range(4)]
    assert distinct == sorted(distinct) and distinct[0] == 3 and distinct[1] > 6

    def spread(depth: int) -> float:
        _, nodes = codes[:, :depth].unique(dim=0, return_inverse=True)
        means = torch.zeros(int(nodes.max()) + 1, 5).index_add_(0, nodes, vectors)
        means /= torch.bincount(nodes)[:, None]
        return float((vectors - means[nodes]).square().sum())

    spreads = [spread(depth) for depth in range(1, 5)]
    assert spreads == sorted(spreads, reverse=True)


def test_a_node_with_fewer_images_than_entries_has_a_child_an_image_and_is_split_no_further():
    vectors = torch.tensor([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]])
    tree = hierarchy.fit(vectors, (3, 8), 10, seed=0)
    codes = hierarchy.encode(vectors, tree)
    assert sorted(codes[:, 0].tolist()) == [0, 1, 2]
    assert (codes[:, 1:] == 0).all()
    assert list(tree.centres) == [()]


def test_images_that_are_equal_share_their_code_however_deep():
    vectors = torch.cat([torch.zeros(5, 3), torch.ones(5, 3)])
    codes = hierarchy.encode(vectors, hierarchy.fit(vectors, (3, 4), 10, seed=0))
    assert len(codes.unique(dim=0)) == 2


def test_an_image_from_outside_follows_the_nearest_centres_wherever_it_stands():
    vectors = blobs(200)
    tree = hierarchy.fit(vectors, (3, 4), 10, seed=0)
    codes = hierarchy.encode(vectors, tree)
    near = vectors + 1e-6
    assert (hierarchy.encode(near, tree) == codes).float().mean() > 0.99
    assert torch.equal(hierarchy.encode(vectors[17:20], tree), codes[17:20])
    assert hierarchy.encode(vectors[:0], tree).shape == (0, 3)
