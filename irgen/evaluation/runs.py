"""Runs, in TREC's sense: one table of a method's results for all queries."""

import numpy as np
import numpy.typing as npt
import polars as pl

from irgen.evaluation.query_set import Flags, Ids, RankedLists

SCHEMA = {
    "query": pl.Int64,
    "rank": pl.Int64,
    "item": pl.Int64,
    "score": pl.Float32,
    "relevant": pl.Boolean,
    "code": pl.String,
}


def to_table(lists: RankedLists, relevant: Flags, codes: npt.NDArray[np.integer]) -> pl.DataFrame:
    """Return the run as a table (SCHEMA), one row a result, sorted by query and rank.

    ``relevant`` (Q, k); ``codes`` (N, M), shown like ``12-3-60-1``. Padding gives no row.
    """
    query, rank = np.nonzero(lists.ids >= 0)
    items = lists.ids[query, rank]
    columns = {
        "query": query,
        "rank": rank + 1,
        "item": items,
        "score": lists.scores[query, rank],
        "relevant": relevant[query, rank],
        "code": ["-".join(map(str, code)) for code in codes[items].tolist()],
    }
    return pl.DataFrame(columns, schema=SCHEMA)


def from_table(table: pl.DataFrame, queries: int, k: int) -> tuple[RankedLists, Flags]:
    """Invert :func:`to_table`: return lists and relevance (Q, k), padded with −1, −inf and False.
    Ranks beyond k are left out."""
    table = table.filter(pl.col("rank") <= k)
    cells = table["query"].to_numpy(), table["rank"].to_numpy() - 1
    ids: Ids = np.full((queries, k), -1, dtype=np.int64)
    scores = np.full((queries, k), -np.inf, dtype=np.float32)
    relevant = np.zeros((queries, k), dtype=bool)
    ids[cells], scores[cells], relevant[cells] = table["item"], table["score"], table["relevant"]
    return RankedLists(ids, scores), relevant
