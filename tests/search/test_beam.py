import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from irgen.models import quantizer
from irgen.models.decoder import IdentifierDecoder, Shape
from irgen.search import beam, live, trie
from irgen.search.codebook_scorer import CodebookScorer
from irgen.search.decoder import Decoder

SHAPE = Shape(summary_width=6, token_width=8, token_count=4, levels=3, codebook=6)


@pytest.fixture
def retriever(retriever_settings) -> IdentifierDecoder:
    torch.manual_seed(0)
    model = IdentifierDecoder(retriever_settings, SHAPE).eval()
    for parameter in model.parameters():
        parameter.data *= 3  # far from uniform, so that orders are certain
    return model


def queries(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return (
        torch.randn(count, 6, generator=generator),
        torch.randn(count, 4, 8, generator=generator),
    )


def decode(retriever, summary, tokens, built, width, precision="fp32") -> beam.Beams:
    scorer = Decoder(retriever, precision).start(summary, tokens)
    return beam.search(scorer, [live.keep_all(built)], width)


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
    result = decode(retriever, summary, tokens, built, len(distinct))
    scores, order = exhaustive(retriever, summary, tokens, distinct).sort(dim=1, descending=True)
    assert torch.equal(result.leaves[0], order)
    assert torch.equal(result.codes, distinct[order])
    torch.testing.assert_close(result.scores, scores, atol=1e-4, rtol=1e-4)


def test_every_beam_has_the_true_log_probability_of_its_codes(retriever):
    summary, tokens = queries(4)
    built = trie.build(random_codes(80, seed=1))
    distinct = trie.codes_of(built)
    result = decode(retriever, summary, tokens, built, 5)
    every = exhaustive(retriever, summary, tokens, distinct)
    torch.testing.assert_close(
        result.scores, every.gather(1, result.leaves[0]), atol=1e-4, rtol=1e-4
    )
    assert (result.scores.diff(dim=1) <= 0).all()


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
    result = decode(retriever, summary, tokens, trie.build(codes), 4)
    for q in range(6):
        expected = dictionary_beam(retriever, summary[q : q + 1], tokens[q : q + 1], codes, 4)
        assert [tuple(code) for code in result.codes[q].tolist()] == expected


def test_a_batch_of_32_is_32_batches_of_one(retriever):
    summary, tokens = queries(32)
    built = trie.build(random_codes(90, seed=4))
    together = decode(retriever, summary, tokens, built, 7)
    for q in range(32):
        alone = decode(retriever, summary[q : q + 1], tokens[q : q + 1], built, 7)
        assert torch.equal(together.leaves[0][q], alone.leaves[0][0])
        torch.testing.assert_close(together.scores[q], alone.scores[0], atol=1e-4, rtol=1e-4)


def test_fewer_codes_than_beams_gives_fewer_results_never_an_invalid_one(retriever):
    codes = torch.tensor([[0, 1, 2], [0, 1, 3], [5, 0, 0]])
    result = decode(retriever, *queries(2), trie.build(codes), 10)
    assert sorted(result.leaves[0][0].tolist()) == [-1] * 7 + [0, 1, 2]
    assert (result.scores[:, 3:] == -torch.inf).all()
    assert (result.codes[:, 3:] == -1).all()
    assert result.scores[:, :3].isfinite().all()


def test_a_first_level_with_fewer_children_than_beams_loses_nothing(retriever):
    codes = torch.cat([torch.zeros(6, 1).long(), torch.arange(6)[:, None].expand(6, 2)], dim=1)
    result = decode(retriever, *queries(3), trie.build(codes), 5)
    assert (result.leaves[0] >= 0).all()
    assert all(len(set(row)) == 5 for row in result.leaves[0].tolist())


def test_one_image_in_the_database(retriever):
    result = decode(retriever, *queries(2), trie.build(torch.tensor([[3, 3, 3]])), 4)
    assert result.leaves[0].tolist() == [[0, -1, -1, -1]] * 2
    assert result.codes[0, 0].tolist() == [3, 3, 3]


def parts_of(codes: torch.Tensor, mask: torch.Tensor) -> list[live.LiveTrie]:
    """Return the rows of ``codes`` where ``mask`` is true, in two tries that hold dead rows too."""
    first = torch.arange(len(codes)) < len(codes) // 3
    return [
        live.keep_rows(trie.build(codes[half]), mask[half])
        for half in (first, ~first)
        if half.any()
    ]


@given(st.integers(1, 60), st.integers(0, 100), st.integers(1, 12))
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_two_tries_with_dead_rows_are_one_trie_of_the_living(retriever, count, seed, width):
    codes = random_codes(count, seed)
    mask = torch.rand(count, generator=torch.Generator().manual_seed(seed)) < 0.5
    mask[seed % count] = True
    summary, tokens = queries(3)
    result = beam.search(Decoder(retriever).start(summary, tokens), parts_of(codes, mask), width)
    alone = decode(retriever, summary, tokens, trie.build(codes[mask]), width)
    assert torch.equal(result.codes, alone.codes)
    assert torch.equal(result.scores, alone.scores)
    torch.testing.assert_close(result.normalised_log_probs, alone.normalised_log_probs)


def test_normalised_probabilities_of_all_codes_sum_to_one(retriever):
    built = trie.build(random_codes(80))
    result = decode(retriever, *queries(4), built, len(built.codes[-1]))
    torch.testing.assert_close(result.normalised_log_probs.exp().sum(1), torch.ones(4))
    assert (result.normalised_log_probs >= result.scores).all()


def test_first_code_probabilities_sum_to_one_and_equal_those_of_scored_codes(retriever):
    built = trie.build(random_codes(80))
    decoder = Decoder(retriever)
    result = decode(retriever, *queries(4), built, len(built.codes[-1]))
    _, given = beam.score_codes(decoder.start(*queries(4)), [live.keep_all(built)], result.codes)
    torch.testing.assert_close(
        result.first_code_log_probs.gather(1, result.codes[..., 0]), given[..., 0]
    )
    torch.testing.assert_close(result.first_code_log_probs.exp().sum(1), torch.ones(4))
    missing = sorted(
        set(range(result.first_code_log_probs.shape[1])) - set(result.codes[0, :, 0].tolist())
    )
    assert (result.first_code_log_probs[:, missing] == -torch.inf).all()


def test_scoring_a_code_gives_the_step_scores_of_its_beam(retriever):
    built = trie.build(random_codes(80))
    decoder, parts = Decoder(retriever), [live.keep_all(built)]
    result = beam.search(decoder.start(*queries(4)), parts, 6)
    steps, given = beam.score_codes(decoder.start(*queries(4)), parts, result.codes)
    torch.testing.assert_close(steps.sum(-1), result.scores)
    torch.testing.assert_close(given.sum(-1), result.normalised_log_probs)


def test_a_code_that_no_image_has_has_no_normalised_probability(retriever):
    parts = [live.keep_all(trie.build(torch.tensor([[1, 2, 3], [2, 0, 0]])))]
    steps, given = beam.score_codes(
        Decoder(retriever).start(*queries(1)), parts, torch.tensor([[[1, 2, 4], [1, 0, 0]]])
    )
    assert steps.isfinite().all()
    assert given[0, 0].isfinite().tolist() == [True, True, False]
    assert given[0, 1].isfinite().tolist() == [True, False, False]


def test_the_codebooks_lead_to_the_nearest_reconstructions():
    generator = torch.Generator().manual_seed(0)
    codebooks = torch.randn(3, 6, 5, generator=generator)
    embeddings = torch.randn(4, 5, generator=generator)
    built = trie.build(random_codes(70))
    distinct = trie.codes_of(built)
    result = beam.search(
        CodebookScorer.start(embeddings, codebooks), [live.keep_all(built)], len(distinct)
    )
    rebuilt = quantizer.decode(distinct, codebooks)[:, -1]
    taken_off = embeddings.square().sum(1)[:, None] - torch.cdist(embeddings, rebuilt) ** 2
    torch.testing.assert_close(result.scores, taken_off.sort(dim=1, descending=True).values)
    assert torch.equal(result.codes[:, 0], distinct[taken_off.argmax(1)])


def test_the_code_that_one_beam_finds_comes_first_and_the_nearest_others_after_it():
    generator = torch.Generator().manual_seed(2)
    codebooks = torch.randn(3, 6, 5, generator=generator)
    embeddings = torch.randn(40, 5, generator=generator)
    tries = [live.keep_all(trie.build(random_codes(70)))]

    def search(kind, width: int) -> beam.Beams:
        return kind(CodebookScorer.start(embeddings, codebooks), tries, width)

    greedy, result = search(beam.search, 1), search(beam.nearest_search, 200)
    nearest = search(beam.search, 200)
    assert torch.equal(result.codes[:, 0], greedy.codes[:, 0])
    assert (greedy.codes[:, 0] != nearest.codes[:, 0]).any(), "the nearest is not always first"
    assert (result.scores[:, 1:].diff(dim=1).nan_to_num(0) <= 0).all()
    torch.testing.assert_close(result.scores.sort(1, descending=True).values, nearest.scores)
    first = search(beam.nearest_search, 1)
    assert torch.equal(first.codes, greedy.codes)


def test_few_prefixes_find_what_is_below_the_likeliest(retriever):
    built = trie.build(random_codes(70))
    scorer = Decoder(retriever).start(*queries(5))
    tries = [live.keep_all(built)]
    every = beam.search(Decoder(retriever).start(*queries(5)), tries, 80)
    few = beam.search(scorer, tries, 80, prefixes=2)
    likeliest = every.first_code_log_probs.topk(2, dim=1).indices
    for query in range(5):
        found = few.codes[query][few.leaves[0][query] >= 0]
        assert len({tuple(code[:2]) for code in found.tolist()}) == 2, "of the second level"
        assert set(found[:, 0].tolist()) <= set(likeliest[query].tolist())


def test_lower_precision_gives_nearly_the_same_scores(retriever):
    built = trie.build(random_codes(60))
    exact = decode(retriever, *queries(8), built, len(built.codes[-1]))
    by_leaf = exact.scores.gather(1, exact.leaves[0].long().argsort(1))
    for precision, tolerance in [("bf16", 0.2), ("int8", 0.5)]:
        result = decode(retriever, *queries(8), built, len(built.codes[-1]), precision)
        scores = result.scores.gather(1, result.leaves[0].long().argsort(1))
        assert (scores - by_leaf).abs().mean() < tolerance
        assert (scores != by_leaf).any()


def test_a_wide_codebook_needs_no_table_of_children(retriever, monkeypatch):
    codes = random_codes(50)
    plain = decode(retriever, *queries(3), trie.build(codes), 9)
    monkeypatch.setattr(live, "LARGEST_TABLE", 0)
    assert live.keep_all(trie.build(codes)).second is None
    ranges = decode(retriever, *queries(3), trie.build(codes), 9)
    assert torch.equal(plain.leaves[0], ranges.leaves[0])


def test_a_wide_unconstrained_beam_finds_all_codes_of_the_trie_and_many_others(
    retriever,
):
    summary, tokens = queries(4)
    built = trie.build(random_codes(60))
    distinct = trie.codes_of(built)
    parts = [live.keep_all(built)]
    free = beam.unconstrained_search(Decoder(retriever).start(summary, tokens), parts, 6**3)
    bound = decode(retriever, summary, tokens, built, len(distinct))
    there = free.leaves[0] >= 0
    assert (there.sum(1) == len(distinct)).all() and (free.scores > -torch.inf).all()
    for q in range(4):
        assert torch.equal(free.leaves[0][q][there[q]], bound.leaves[0][q])
        assert torch.equal(free.codes[q][there[q]], bound.codes[q])
        torch.testing.assert_close(free.scores[q][there[q]], bound.scores[q], atol=1e-4, rtol=0)
    torch.testing.assert_close(
        free.normalised_log_probs.exp().sum(1), torch.ones(4)
    )  # all there is


def test_an_unconstrained_beam_is_a_beam_over_the_trie_of_every_code(retriever):
    summary, tokens = queries(5)
    every = torch.cartesian_prod(*[torch.arange(6)] * 3)
    parts = [live.keep_all(trie.build(random_codes(40)))]
    free = beam.unconstrained_search(Decoder(retriever).start(summary, tokens), parts, 4)
    bound = decode(retriever, summary, tokens, trie.build(every), 4)
    assert torch.equal(free.codes, bound.codes)
    torch.testing.assert_close(free.scores, bound.scores)
    assert torch.equal(free.leaves[0] >= 0, beam.find_leaves(parts, bound.codes)[0] >= 0)


def test_an_unconstrained_beam_looks_up_live_codes_of_every_trie(retriever):
    summary, tokens = queries(3)
    codes = random_codes(60)
    built = trie.build(codes)
    alive = torch.arange(60) % 2 == 0
    parts = [live.keep_rows(built, alive), live.keep_all(trie.build(codes[1::2][:10]))]
    free = beam.unconstrained_search(Decoder(retriever).start(summary, tokens), parts, 6**3)
    live_codes = {tuple(code) for code in [*codes[alive].tolist(), *codes[1::2][:10].tolist()]}
    there = torch.stack(free.leaves).amax(0) >= 0
    for q in range(3):
        assert {tuple(code) for code in free.codes[q][there[q]].tolist()} == live_codes


def test_an_unconstrained_beam_of_fewer_codes_than_beams_ends_blank(retriever):
    parts = [live.keep_all(trie.build(random_codes(9)))]
    free = beam.unconstrained_search(Decoder(retriever).start(*queries(2)), parts, 6**3 + 5)
    assert (free.codes[:, 6**3 :] == -1).all() and (free.leaves[0][:, 6**3 :] == -1).all()
    assert (free.scores[:, 6**3 :] == -torch.inf).all()
