import pytest
import torch

from irgen.models.retriever import Retriever, Shape
from irgen.search import beam, trie

SHAPE = Shape(summary_width=6, token_width=8, token_count=4, levels=3, codebook=6)


@pytest.fixture
def retriever(retriever_settings) -> Retriever:
    torch.manual_seed(0)
    model = Retriever(retriever_settings, SHAPE).eval()
    for parameter in model.parameters():
        parameter.data *= 3  # far from uniform, so that orders are certain
    return model


def queries(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return (
        torch.randn(count, 6, generator=generator),
        torch.randn(count, 4, 8, generator=generator),
    )


def random_codes(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(6, (count, 3), generator=torch.Generator().manual_seed(seed))


@torch.inference_mode()
def exhaustive(retriever, summary, tokens, codes) -> torch.Tensor:
    """Log-probabilities (Q, n) of every one of ``codes`` (n, M), each scored by teacher forcing."""
    scores = []
    for code in codes:
        logits = retriever(summary, tokens, code.expand(len(summary), -1)).log_softmax(-1)
        scores.append(logits.gather(-1, code.expand(len(summary), -1)[..., None]).sum((1, 2)))
    return torch.stack(scores, dim=1)


def test_a_wide_beam_is_an_exhaustive_search(retriever):
    summary, tokens = queries(5)
    built = trie.build(random_codes(60))
    distinct = trie.codes_of(built)
    found = beam.search(retriever, summary, tokens, built, len(distinct))
    scores, order = exhaustive(retriever, summary, tokens, distinct).sort(dim=1, descending=True)
    assert torch.equal(found.leaves, order)
    assert torch.equal(found.codes, distinct[order])
    torch.testing.assert_close(found.scores, scores, atol=1e-4, rtol=1e-4)


def test_any_beam_tells_the_true_log_probability_of_what_it_finds(retriever):
    summary, tokens = queries(4)
    built = trie.build(random_codes(80, seed=1))
    distinct = trie.codes_of(built)
    found = beam.search(retriever, summary, tokens, built, 5)
    every = exhaustive(retriever, summary, tokens, distinct)
    torch.testing.assert_close(found.scores, every.gather(1, found.leaves), atol=1e-4, rtol=1e-4)
    assert (found.scores.diff(dim=1) <= 0).all()


def dictionary_beam(retriever, summary, tokens, codes, width):
    """Beam search one query at a time over Python prefixes, each scored from the start."""
    prefixes = [()]
    table = [tuple(code) for code in codes.tolist()]
    for level in range(3):
        grown = {c[: level + 1] for c in table if c[:level] in prefixes}
        scored = []
        for prefix in grown:
            code = torch.tensor([[*prefix, *[0] * (3 - len(prefix))]])
            logits = retriever(summary, tokens, code).log_softmax(-1)[0]
            scored.append((sum(float(logits[m, e]) for m, e in enumerate(prefix)), prefix))
        prefixes = [prefix for _, prefix in sorted(scored, reverse=True)[:width]]
    return prefixes


@torch.inference_mode()
def test_a_narrow_beam_equals_a_dictionary_trie_walked_in_python(retriever):
    summary, tokens = queries(6)
    codes = random_codes(70, seed=3)
    found = beam.search(retriever, summary, tokens, trie.build(codes), 4)
    for q in range(6):
        expected = dictionary_beam(retriever, summary[q : q + 1], tokens[q : q + 1], codes, 4)
        assert [tuple(code) for code in found.codes[q].tolist()] == expected


def test_a_batch_of_32_is_32_batches_of_one(retriever):
    summary, tokens = queries(32)
    built = trie.build(random_codes(90, seed=4))
    together = beam.search(retriever, summary, tokens, built, 7)
    for q in range(32):
        alone = beam.search(retriever, summary[q : q + 1], tokens[q : q + 1], built, 7)
        assert torch.equal(together.leaves[q], alone.leaves[0])
        torch.testing.assert_close(together.scores[q], alone.scores[0], atol=1e-4, rtol=1e-4)


def test_fewer_codes_than_beams_gives_fewer_results_never_an_invalid_one(retriever):
    codes = torch.tensor([[0, 1, 2], [0, 1, 3], [5, 0, 0]])
    found = beam.search(retriever, *queries(2), trie.build(codes), 10)
    assert sorted(found.leaves[0].tolist()) == [-1] * 7 + [0, 1, 2]
    assert (found.scores[:, 3:] == -torch.inf).all()
    assert (found.codes[:, 3:] == -1).all()
    assert found.scores[:, :3].isfinite().all()


def test_a_first_level_with_fewer_children_than_beams_loses_nothing(retriever):
    codes = torch.cat([torch.zeros(6, 1).long(), torch.arange(6)[:, None].expand(6, 2)], dim=1)
    found = beam.search(retriever, *queries(3), trie.build(codes), 5)
    assert (found.leaves >= 0).all()
    assert all(len(set(row)) == 5 for row in found.leaves.tolist())


def test_one_image_in_the_database(retriever):
    found = beam.search(retriever, *queries(2), trie.build(torch.tensor([[3, 3, 3]])), 4)
    assert found.leaves.tolist() == [[0, -1, -1, -1]] * 2
    assert found.codes[0, 0].tolist() == [3, 3, 3]
