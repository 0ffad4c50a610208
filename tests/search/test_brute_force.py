import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from irgen.search import brute_force


@given(st.integers(1, 60), st.integers(1, 70), st.integers(1, 20), st.booleans())
@settings(max_examples=50, deadline=None)
def test_blocks_give_the_same_as_numpys_full_sort(count, k, block, ties):
    generator = torch.Generator().manual_seed(count)
    database = torch.randn(count, 4, generator=generator)
    queries = torch.randn(3, 4, generator=generator)
    if ties:
        database, queries = database.round(), queries.round()
    original, brute_force.BLOCK = brute_force.BLOCK, block
    try:
        result = brute_force.brute_force_search(queries, database, k)
    finally:
        brute_force.BLOCK = original
    every = (queries @ database.T).numpy()
    order = np.argsort(-every, axis=1, kind="stable")[:, :k]
    assert np.array_equal(result.ids[:, : order.shape[1]].numpy(), order)
    assert (result.ids[:, order.shape[1] :] == -1).all()
    assert (result.scores[:, order.shape[1] :] == -torch.inf).all()


def test_what_is_added_counts_in_every_block(monkeypatch):
    generator = torch.Generator().manual_seed(3)
    database, queries = (torch.randn(n, 4, generator=generator) for n in (25, 3))
    more = torch.randn(3, 25, generator=generator)
    monkeypatch.setattr(brute_force, "BLOCK", 7)
    result = brute_force.brute_force_search(
        queries, database, 25, lambda start, end: more[:, start:end]
    )
    expected = (queries @ database.T + more).sort(dim=1, descending=True)
    assert torch.equal(result.ids, expected.indices)
    torch.testing.assert_close(result.scores, expected.values)


def test_a_row_with_ties_beside_one_without_and_a_score_that_is_no_number():
    scores = torch.tensor([[0.5, 0.9, 0.5, 0.5], [0.1, 0.2, 0.3, 0.4]])
    assert brute_force.top_k(scores, 2)[1].tolist() == [[1, 0], [3, 2]]
    scores[1, 0] = torch.nan
    with pytest.raises(AssertionError, match="not a number"):
        brute_force.top_k(scores, 2)
