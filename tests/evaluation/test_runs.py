"""A run as a table."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from irgen.evaluation import runs
from irgen.evaluation.query_set import RankedLists

INF = np.float32(np.inf)


@st.composite
def results(draw):
    """Padded ids and scores (Q, k) over a database of 9."""
    Q, k = draw(st.integers(1, 5)), draw(st.integers(1, 6))
    ids = np.full((Q, k), -1, np.int64)
    for row in ids:
        rows = draw(st.lists(st.integers(0, 8), max_size=k, unique=True))
        row[: len(rows)] = rows
    scores = np.where(ids >= 0, -np.arange(k, dtype=np.float32) / 3, -INF).astype(np.float32)
    return ids, scores


@settings(max_examples=40, deadline=None)
@given(results())
def test_from_table_undoes_to_table(result):
    ids, scores = result
    relevant = (ids % 2 == 0) & (ids >= 0)
    codes = np.arange(18).reshape(9, 2)
    table = runs.to_table(RankedLists(ids, scores), relevant, codes)
    assert table.schema == runs.SCHEMA
    assert len(table) == (ids >= 0).sum()
    assert all(x == f"{2 * i}-{2 * i + 1}" for i, x in table.select("item", "code").iter_rows())
    lists, again = runs.from_table(table, *ids.shape)
    pairs = ((ids, lists.ids), (scores, lists.scores), (relevant, again))
    for given_array, returned_array in pairs:
        assert (given_array == returned_array).all() and given_array.dtype == returned_array.dtype
