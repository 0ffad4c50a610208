import torch

from irgen.search import rank, trie
from irgen.search.beam import Beams

CODES = torch.tensor([[0, 0], [1, 1], [0, 0], [1, 0], [1, 1], [0, 0]])  # leaves: 00, 10, 11


def beams(leaves: list[list[int]], scores: list[list[float]]) -> Beams:
    return Beams(
        torch.tensor(leaves), torch.zeros(*torch.tensor(leaves).shape, 2), torch.tensor(scores)
    )


def test_buckets_come_in_the_order_of_the_beams():
    found = rank.gather(trie.build(CODES), beams([[2, 0]], [[-1.0, -2.0]]), 10, 10)
    assert found.rows.tolist() == [[1, 4, 0, 2, 5]]
    assert found.scores.tolist() == [[-1.0, -1.0, -2.0, -2.0, -2.0]]
    assert found.beams.tolist() == [[0, 0, 1, 1, 1]]


def test_a_dead_beam_brings_nothing_and_short_queries_are_padded():
    both = beams([[1, -1], [0, 2]], [[-1.0, -torch.inf], [-1.0, -2.0]])
    found = rank.gather(trie.build(CODES), both, 10, 10)
    assert found.rows.tolist() == [[3, -1, -1, -1, -1], [0, 2, 5, 1, 4]]
    assert found.scores[0].tolist() == [-1.0] + [-torch.inf] * 4


def test_no_more_is_gathered_than_wanted_in_whole_buckets_or_than_the_limit():
    search = beams([[0, 2, 1]], [[-1.0, -2.0, -3.0]])
    built = trie.build(CODES)
    assert rank.gather(built, search, 2, 10).rows.tolist() == [[0, 2, 5]]
    assert rank.gather(built, search, 4, 10).rows.tolist() == [[0, 2, 5, 1, 4]]
    assert rank.gather(built, search, 4, 2).rows.tolist() == [[0, 2]]


def test_a_bucket_is_ordered_by_cosine_and_ties_by_row():
    candidates = rank.gather(
        trie.build(CODES), beams([[2, 0]], [[-1.0, -2.0]]), 10, 10
    )  # rows 1 4 | 0 2 5
    cosines = torch.tensor([[0.1, 0.9, 0.5, 0.7, 0.7]])
    by_code = rank.by_code(candidates, cosines, 4)
    assert by_code.ids.tolist() == [[4, 1, 2, 5]]
    assert by_code.scores.tolist() == [[-1.0, -1.0, -2.0, -2.0]]
    by_cosine = rank.by_cosine(candidates, cosines, 6)
    assert by_cosine.ids.tolist() == [[4, 2, 5, 0, 1, -1]]
    assert by_cosine.scores[0, -1] == -torch.inf


def test_similarity_is_the_cosine_of_unit_vectors():
    embeddings = torch.eye(6)
    candidates = rank.gather(trie.build(CODES), beams([[1, -1]], [[-1.0, -torch.inf]]), 2, 2)
    queries = torch.tensor([[0.0, 0, 0, 0.6, 0.8, 0]])
    found = rank.similarity(candidates, queries, embeddings)
    torch.testing.assert_close(found[0, 0], torch.tensor(0.6))


def test_all_images_in_one_bucket_are_all_found_nearest_first():
    codes = torch.zeros(50, 3).long()
    embeddings = torch.nn.functional.normalize(
        torch.randn(50, 4, generator=torch.Generator().manual_seed(0)), dim=-1
    )
    candidates = rank.gather(trie.build(codes), beams([[0]], [[-0.5]]), 10, 100)
    cosines = rank.similarity(candidates, embeddings[7:8], embeddings)
    result = rank.by_code(candidates, cosines, 10)
    expected = (embeddings @ embeddings[7]).topk(10).indices
    assert torch.equal(result.ids[0], expected)
