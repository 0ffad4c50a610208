from dataclasses import fields, replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from irgen.errors import IndexingError
from irgen.models import quantizer
from irgen.search import beam, engine, live, rank
from irgen.search.codebook_scorer import CodebookScorer
from irgen.search.decoder import Decoder
from irgen.search.engine import Hits, Options, QueryFeatures
from irgen.search.nearby import COPY_COSINE
from irgen.search.relevance import Ranker
from irgen.search.snapshot import Segment, Snapshot

from ..small_index import RANKING

WIDE = Options(beams=216, candidates=1000, fresh_beams=216)


class SameLabels:
    """Reads two labels in every query, the second likelier."""

    code_labels = torch.full((6, 2), 0.5)

    def read_labels(
        self, embeddings: torch.Tensor, first_code_log_probs: torch.Tensor
    ) -> torch.Tensor:
        return torch.tensor([0.1, 0.9]).expand(len(embeddings), 2)


def same(one: Hits, other: Hits, rows: dict[int, int] | None = None) -> None:
    """Assert that hits are equal up to rounding, with rows renumbered."""
    for field in fields(Hits):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if field.name == "rows":
            a = a if rows is None else torch.tensor([[rows[i] for i in q] for q in a.tolist()])
            assert torch.equal(a, b)
        elif field.name == "by_embedding":
            assert torch.equal(a, b)
        else:
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def by_key(one: Snapshot, other: Snapshot) -> dict[int, int]:
    """Rows of ``one`` to the rows of ``other`` with their keys."""
    places = {int(key): row for row, key in enumerate(other.segments[0].keys)}
    keys = torch.cat([segment.keys for segment in one.segments]).tolist()
    return {-1: -1} | {row: places[key] for row, key in enumerate(keys) if key in places}


def test_a_wide_search_is_an_exhaustive_one(decoder, read, fresh):
    snapshot, asked = fresh(list(range(50))), read(6)
    hits = engine.search(decoder, asked, snapshot, 50, WIDE)
    cosines = asked.embedding @ snapshot.segments[0].embeddings.float().T
    scores, order = cosines.sort(dim=1, descending=True, stable=True)
    assert torch.equal(hits.rows, order)  # rows are in order of key, which breaks ties
    torch.testing.assert_close(hits.scores, scores.clamp_max(1))
    assert not hits.by_embedding.any()


def test_without_reranking_the_retrievers_log_probability_sorts(decoder, read, fresh):
    snapshot, asked = fresh(list(range(60))), read(5)
    hits = engine.search(decoder, asked, snapshot, 60, replace(WIDE, rerank=False))
    assert torch.equal(hits.scores, hits.log_probability)
    assert (hits.scores.diff(dim=1) <= 0).all()
    same_code = hits.scores.diff(dim=1) == 0
    assert (hits.cosine.diff(dim=1)[same_code] <= 0).all()
    codes = snapshot.gather(hits.rows, "codes").long()
    writing, (part,) = decoder.start(asked.summary, asked.tokens), snapshot.live_tries
    steps, _ = beam.score_codes(writing, [part], codes)
    torch.testing.assert_close(steps.sum(-1), hits.log_probability, atol=1e-4, rtol=1e-4)


def test_an_image_the_retriever_would_never_predict_is_found_by_embedding(decoder, read, fresh):
    snapshot, asked = fresh([n for n in range(80) if n % 3]), read(4)
    narrow = Options(beams=2, candidates=20, fresh_beams=4)
    beams = beam.search(decoder.start(asked.summary, asked.tokens), snapshot.live_tries, 2)
    own = quantizer.encode(asked.embedding, snapshot.codebooks)
    for query in range(4):
        unpredicted = [
            c
            for c in torch.cartesian_prod(*[torch.arange(6)] * 3)
            if c.tolist() not in beams.codes[query].tolist() and c[0] != own[query, 0]
        ]
        vector = asked.embedding[query : query + 1] + 0.05  # near, but no copy
        vector = torch.nn.functional.normalize(vector, dim=-1).half()
        errors = [
            float((vector.float() - rebuilt_from(snapshot, code)).square().sum())
            for code in unpredicted
        ]
        code = unpredicted[errors.index(min(errors))][None]  # what the tokenizer would come near to
        key = torch.tensor([2**62 + 1])
        added = Segment.build(code, vector, key, torch.tensor([False]))
        later = snapshot.with_added(added)
        one = type(asked)(*(column[query : query + 1] for column in vars(asked).values()))
        hits = engine.search(decoder, one, later, 5, narrow)
        assert int(hits.rows[0, 0]) == len(snapshot.segments[0])
        assert bool(hits.by_embedding[0, 0])
        assert hits.log_probability[0, 0] == -torch.inf and hits.cosine[0, 0] < COPY_COSINE
        blind = engine.search(decoder, one, later, 5, replace(narrow, fresh_beams=0))
        assert len(snapshot.segments[0]) not in blind.rows[0].tolist()


RANKINGS = [Options(), Options(rerank=False)]


def under_own_codes(
    snapshot: Snapshot, asked: QueryFeatures, count: int, trained: bool, seed: int = 0
) -> Segment:
    """Return ``count`` random images under the own code of each query, one query after the other;
    the last of each looks like the query, and its key comes after all others."""
    queries = len(asked.embedding)
    codes = quantizer.encode(asked.embedding, snapshot.codebooks).repeat_interleave(count, 0)
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(queries, count, 5, generator=generator)
    vectors[:, -1] = asked.embedding
    vectors = torch.nn.functional.normalize(vectors, dim=-1).flatten(0, 1).half()
    keys = 2**62 + seed * 10**6 + torch.arange(len(codes))
    return Segment.build(codes, vectors, keys, torch.full((len(codes),), trained))


@pytest.mark.parametrize("options", RANKINGS)
@pytest.mark.parametrize("trained", [True, False])
def test_images_under_the_querys_own_code_are_always_among_the_candidates(
    decoder, read, fresh, options, trained
):
    asked, base = read(6), fresh(list(range(30)))
    snapshot = base.with_added(under_own_codes(base, asked, 4, trained))
    narrow = replace(options, beams=1, candidates=3, fresh_beams=0)
    hits = engine.search(decoder, asked, snapshot, 40, narrow)
    codes = snapshot.gather(torch.arange(snapshot.rows), "codes").long()
    own = quantizer.encode(asked.embedding, snapshot.codebooks)
    gone = torch.tensor([30 + 4 * query for query in range(6)])
    allowed = torch.ones(snapshot.rows, dtype=torch.bool).index_fill(0, gone + 1, False)
    fewer = engine.search(decoder, asked, snapshot.without(gone).keep_allowed(allowed), 40, narrow)
    for query in range(6):
        rows = torch.nonzero((codes == own[query]).all(1)).flatten().tolist()
        left = [row for row in rows if allowed[row] and row not in gone]
        assert len(rows) >= 4 and set(rows) <= set(hits.rows[query].tolist())
        assert set(left) == set(rows) & set(fewer.rows[query].tolist())
    assert (hits.scores.nan_to_num(neginf=-1e9).diff(dim=1) <= 0).all()
    assert (hits.scores[hits.rows >= 0] > -torch.inf).all()


@pytest.mark.parametrize("options", RANKINGS)
def test_a_copy_of_the_query_comes_first_however_many_images_share_its_code(
    decoder, read, fresh, options
):
    asked, base = read(6), fresh(list(range(60)))
    snapshot = base.with_added(under_own_codes(base, asked, 50, trained=True))
    hits = engine.search(decoder, asked, snapshot, 5, replace(options, beams=2, candidates=7))
    assert hits.rows[:, 0].tolist() == [60 + 50 * query + 49 for query in range(6)]
    best = hits.cosine[:, 0] if options.rerank else torch.zeros(6)
    assert torch.equal(hits.scores[:, 0], best)
    assert (hits.cosine[:, 0] >= COPY_COSINE).all() and (hits.cosine[:, 1:] < COPY_COSINE).all()


@pytest.mark.parametrize("options", RANKINGS)
def test_a_copy_under_another_code_comes_first(decoder, read, fresh, options):
    asked, base = read(6), fresh(list(range(60)))
    near = torch.nn.functional.normalize(asked.embedding + 0.01, dim=-1)
    codes = quantizer.encode(asked.embedding, base.codebooks)
    scorer = CodebookScorer.start(asked.embedding, base.codebooks)
    every = Segment.build(torch.cartesian_prod(*[torch.arange(6)] * 3), *[torch.zeros(216)] * 3)
    nearest = beam.search(scorer, [live.keep_all(every.trie)], 2).codes  # (Q, 2, M)
    other = torch.where((nearest[:, 0] == codes).all(1)[:, None], nearest[:, 1], nearest[:, 0])
    columns = (near.half(), 2**62 + torch.arange(6), torch.ones(6, dtype=torch.bool))
    snapshot = base.with_added(Segment.build(other, *columns))
    hits = engine.search(decoder, asked, snapshot, 5, replace(options, beams=1, candidates=8))
    assert (other != codes).any(1).all() and (hits.cosine[:, 0] >= COPY_COSINE).all()
    assert hits.rows[:, 0].tolist() == list(range(60, 66))


def test_copies_are_in_the_order_of_their_cosines_before_all_others(decoder, read, fresh):
    asked, base = read(4), fresh(list(range(50)))
    snapshot = base.with_added(under_own_codes(base, asked, 3, trained=True))
    near = torch.nn.functional.normalize(asked.embedding + 0.01 * torch.eye(5)[:4], dim=-1)
    near = QueryFeatures(asked.summary, asked.tokens, near)
    vectors = snapshot.gather(torch.arange(snapshot.rows), "embeddings").float()
    cosines = near.embedding @ vectors.T  # (Q, N)
    assert (cosines >= COPY_COSINE).any(1).all() and (cosines < COPY_COSINE).any(1).all()
    ranker = Ranker(RANKING, torch.arange(snapshot.rows) % 2, snapshot.trained)
    reader = Decoder(decoder.retriever, label_scorer=SameLabels())
    hits = engine.search(reader, near, snapshot, snapshot.rows, WIDE, ranker)
    copies = hits.cosine >= COPY_COSINE
    assert (hits.scores[copies] == 1).all() and (hits.scores[~copies] < 1).all()
    assert (copies.int().diff(dim=1) <= 0).all(), "copies come first"
    assert (hits.cosine.diff(dim=1)[copies[:, 1:]] <= 0).all()


def test_images_of_the_likeliest_label_come_first_and_within_it_the_nearest(decoder, read, fresh):
    asked, snapshot = read(4), fresh(list(range(50)))
    ranker = Ranker(RANKING, torch.arange(snapshot.rows) % 2, snapshot.trained)
    reader = Decoder(decoder.retriever, label_scorer=SameLabels())
    hits = engine.search(reader, asked, snapshot, snapshot.rows, WIDE, ranker)
    others = hits.cosine < COPY_COSINE
    kept = others[:, 1:] & others[:, :-1]
    assert (hits.scores.diff(dim=1)[kept] <= 0).all()
    same = hits.scores.diff(dim=1) == 0
    assert (hits.cosine.diff(dim=1)[same & kept] <= 1e-6).all()
    changes = (hits.rows % 2).diff(dim=1).ne(0) & kept
    assert (changes.sum(1) == 1).all(), "one label after the other"
    without = engine.search(decoder, asked, snapshot, snapshot.rows, WIDE, ranker)
    assert torch.equal(without.scores, without.cosine), "without a label scorer, cosines sort"


def test_cosines_are_the_same_in_blocks_of_any_size(read, fresh, monkeypatch):
    snapshot, asked = fresh(list(range(50))), read(3)
    rows = torch.arange(50).repeat(4).expand(3, -1)
    whole = rank.cosine(rows, asked.embedding, snapshot)
    monkeypatch.setattr(rank, "CELLS", 1)
    assert torch.equal(rank.cosine(rows, asked.embedding, snapshot), whole)


def rebuilt_from(snapshot: Snapshot, code: torch.Tensor) -> torch.Tensor:
    return sum(snapshot.codebooks[m][c] for m, c in enumerate(code.tolist()))


@given(
    st.lists(st.tuples(st.sampled_from("ard"), st.integers(0, 40)), max_size=12),
    st.integers(1, 30),
    st.sampled_from([1, 3, 10]),
    st.booleans(),
)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_history_answers_like_a_fresh_build_of_what_is_alive(
    decoder, read, fresh, images, history, base, width, rerank
):
    start = list(range(base))
    snapshot, row, added = fresh(start), {}, []
    keys = snapshot.segments[0].keys.tolist()
    for number in start:
        row[number] = keys.index(int(images([number])[2]))
    for kind, number in history:
        if kind in "rd" and number in row:  # removed, or about to be replaced
            snapshot = snapshot.without(torch.tensor([row.pop(number)]))
        if kind in "ar" and number not in row:
            added.append(number)
            row[number] = base + len(added) - 1
            snapshot = snapshot.with_added(Segment.build(*images(added)))
    if not row:
        return
    alone = fresh(sorted(row))
    options = Options(beams=width, candidates=7, fresh_beams=2, rerank=rerank)
    hits = engine.search(decoder, read(3), snapshot, 8, options)
    same(hits, engine.search(decoder, read(3), alone, 8, options), by_key(snapshot, alone))


@given(st.integers(0, 200), st.sampled_from([1, 4, 20]))
@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_filtered_search_is_a_search_of_the_filtered_rebuild(decoder, read, fresh, seed, width):
    numbers = list(range(40))
    snapshot = fresh(numbers)
    allowed = torch.rand(40, generator=torch.Generator().manual_seed(seed)) < 0.2
    keys = snapshot.segments[0].keys[allowed].tolist()
    rebuilt = fresh([n for n in numbers if int(fresh([n]).segments[0].keys) in keys])
    options = Options(beams=width, candidates=10, fresh_beams=3)
    hits = engine.search(decoder, read(3), snapshot.keep_allowed(allowed), 6, options)
    if not allowed.any():
        assert (hits.rows == -1).all()
        return
    same(hits, engine.search(decoder, read(3), rebuilt, 6, options), by_key(snapshot, rebuilt))
    assert (hits.rows >= 0).sum(1).tolist() == [min(6, int(allowed.sum()))] * 3 or width < 20


def test_a_batch_and_its_order_change_nothing(decoder, read, fresh):
    snapshot, asked, options = fresh(list(range(60))), read(32), Options(beams=5, candidates=20)
    together = engine.search(decoder, asked, snapshot, 10, options)
    order = torch.randperm(32, generator=torch.Generator().manual_seed(0))
    shuffled = type(asked)(*(column[order] for column in vars(asked).values()))
    mixed = engine.search(decoder, shuffled, snapshot, 10, options)
    same(mixed, Hits(*(getattr(together, f.name)[order] for f in fields(Hits))))
    for query in range(32):
        one = type(asked)(*(column[query : query + 1] for column in vars(asked).values()))
        alone = engine.search(decoder, one, snapshot, 10, options)
        same(alone, Hits(*(getattr(together, f.name)[query : query + 1] for f in fields(Hits))))


def test_the_number_of_threads_changes_nothing(decoder, read, fresh):
    snapshot, options = fresh(list(range(60))), Options(beams=5, candidates=20)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(engine.search(decoder, read(16), snapshot, 10, options))
    finally:
        torch.set_num_threads(before)
    same(*results)


def test_scores_below_the_least_are_dropped_even_if_nothing_is_left(decoder, read, fresh):
    snapshot, asked = fresh(list(range(50))), read(4)
    every = engine.search(decoder, asked, snapshot, 10, WIDE)
    least = float(every.scores[:, 3].min())
    some = engine.search(decoder, asked, snapshot, 10, replace(WIDE, min_score=least))
    expected = torch.where(every.scores >= least, every.rows, -1)
    assert torch.equal(some.rows, expected)
    assert (some.scores[some.rows < 0] == -torch.inf).all()
    none = engine.search(decoder, asked, snapshot, 10, replace(WIDE, min_cosine=1.5))
    assert (none.rows == -1).all() and (none.normalised_log_prob == -torch.inf).all()


def test_distinct_results_are_not_near_one_another(decoder, read, fresh):
    snapshot, asked = fresh(list(range(70))), read(4)  # every seventh image looks the same
    hits = engine.search(decoder, asked, snapshot, 40, replace(WIDE, distinct=0.99))
    for rows in hits.rows:
        vectors = snapshot.gather(rows[rows >= 0], "embeddings").float()
        near = vectors @ vectors.T - 2 * torch.eye(len(vectors))
        assert (near < 0.99).all()
    plain = engine.search(decoder, asked, snapshot, 70, WIDE)
    assert (plain.rows >= 0).sum() == 4 * 70 > (hits.rows >= 0).sum() > 4 * 20


def test_more_like_an_image_of_the_index_leaves_itself_out(fresh):
    snapshot = fresh(list(range(40)))
    rows = torch.tensor([4, 9])
    embeddings = snapshot.gather(rows, "embeddings").float()
    hits = engine.search_embeddings(embeddings, snapshot, 40, WIDE, excluded=rows)
    cosines = (embeddings @ snapshot.segments[0].embeddings.float().T).clamp_max(1)
    cosines[[0, 1], rows] = -torch.inf
    order = cosines.argsort(dim=1, descending=True, stable=True)
    assert torch.equal(hits.rows[:, :39], order[:, :39])
    assert hits.rows[:, 39].tolist() == [-1, -1]
    assert hits.by_embedding[:, :39].all()


def test_an_index_of_nothing_finds_nothing(decoder, read, fresh):
    hits = engine.search(decoder, read(3), fresh([]), 4, Options())
    assert hits.rows.tolist() == [[-1] * 4] * 3
    late = engine.search_embeddings(read(3).embedding, fresh([]), 4, Options())
    assert late.rows.tolist() == [[-1] * 4] * 3


@pytest.mark.parametrize("candidates", [1, 5, 40])
def test_more_candidates_than_beams_bring_never_fail_and_k_is_kept(
    decoder, read, fresh, candidates
):
    hits = engine.search(
        decoder, read(2), fresh(list(range(9))), 20, Options(beams=3, candidates=candidates)
    )
    assert hits.rows.shape == (2, 20)
    for rows in hits.rows.tolist():
        kept = [row for row in rows if row >= 0]
        assert kept and len(set(kept)) == len(kept)
        assert rows == kept + [-1] * (20 - len(kept))


def test_the_order_breaks_ties_by_key(decoder, read, fresh):
    snapshot = fresh(list(range(0, 140, 7)))  # they all look the same
    hits = engine.search(decoder, read(1), snapshot, 20, WIDE)
    assert hits.rows[0].tolist() == list(range(20))


def test_without_the_trie_a_wide_search_finds_the_same_and_a_narrow_one_less(decoder, read, fresh):
    snapshot, asked = fresh(list(range(60))), read(5)
    for rerank in (True, False):
        wide = replace(WIDE, rerank=rerank, fresh_beams=0)
        bound = engine.search(decoder, asked, snapshot, 60, wide)
        free = engine.search(decoder, asked, snapshot, 60, replace(wide, trie=False))
        assert torch.equal(free.rows, bound.rows)
        torch.testing.assert_close(free.scores, bound.scores, atol=1e-4, rtol=1e-4)
    narrow = replace(WIDE, beams=6, fresh_beams=0)
    bound = engine.search(decoder, asked, snapshot, 60, narrow)
    free = engine.search(decoder, asked, snapshot, 60, replace(narrow, trie=False))
    assert int((free.rows >= 0).sum()) < int((bound.rows >= 0).sum())


@pytest.mark.parametrize("name", ["hedge", "min_score", "min_cosine"])
def test_an_option_that_is_no_number_is_refused(name):
    with pytest.raises(IndexingError, match=f"{name}: nan is not allowed; allowed: a number"):
        Options(**{name: float("nan")})
