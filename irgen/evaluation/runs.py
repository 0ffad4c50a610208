"""Search results as runs: which of them are relevant, and the table they are kept in."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

Ids = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]
Labels = Sequence[str | None] | pl.Series
Hashes = Sequence[str] | pl.Series

COPIES = 100  # of one query that are made room for: a placeholder may be there ten thousand times
SCHEMA = {
    "query": pl.Int64,
    "rank": pl.Int64,
    "item": pl.Int64,
    "score": pl.Float32,
    "relevant": pl.Boolean,
    "code": pl.String,
}


def relevance(ids: Ids, query_labels: Labels, database_labels: Labels) -> npt.NDArray[np.bool_]:
    """Whether each result (Q, k) carries its query's label. Padding (−1) is not relevant, and
    neither is anything to a query without a label (null).

    >>> relevance(np.array([[1, 0, -1]]), ["a"], ["b", "a"]).tolist()
    [[True, False, False]]
    """
    queries, database = _numbered(query_labels, database_labels)
    found = np.append(database, -1)[ids]  # (Q, k); row −1 is the filler at the end
    return (found == queries[:, None]) & (found >= 0) & (ids >= 0)


def _numbered(*columns: Labels | Hashes) -> list[npt.NDArray[np.int64]]:
    """The same number for the same text, whichever column (any) it is in; −1 for null.

    >>> [column.tolist() for column in _numbered(["b", None], ["a", "b"])]
    [[1, -1], [0, 1]]
    """
    texts = pl.concat([pl.Series("", column, dtype=pl.String) for column in columns])
    numbers = texts.rank("dense").cast(pl.Int64).fill_null(0).to_numpy() - 1
    return np.split(numbers, np.cumsum([len(column) for column in columns])[:-1])


def positives(
    query_labels: Labels,
    query_sha256: Hashes,
    database_labels: Labels,
    database_sha256: Hashes,
) -> npt.NDArray[np.int64]:
    """R (Q,): database images with the query's label, copies of the query itself not counted.

    A copy is an image with the same content hash. A query without a label (null) has none.

    >>> positives(["a", "b"], ["x", "y"], ["a", "a", "a"], ["x", "v", "w"]).tolist()
    [2, 0]
    """
    of_label = Counter(database_labels)
    copies = Counter(zip(database_labels, database_sha256, strict=True))
    pairs = zip(query_labels, query_sha256, strict=True)
    counts = [0 if x is None else of_label[x] - copies[x, sha] for x, sha in pairs]
    return np.array(counts, dtype=np.int64)


def search_depth(k: int, query_sha256: Hashes, database_sha256: Hashes) -> int:
    """How many results to ask a search for, so that k are left after :func:`without_self`, of a
    query that is not there more than COPIES times.

    >>> search_depth(10, ["x", "y"], ["x", "x", "z"])
    12
    """
    copies = Counter(database_sha256)
    return k + min(max((copies[sha] for sha in query_sha256), default=0), COPIES)


def without_self(
    ids: Ids, scores: Scores, query_sha256: Hashes, database_sha256: Hashes, k: int
) -> tuple[Ids, Scores]:
    """The first k results of each query that are not the query itself, by content hash.

    ids (Q, any) and scores alike, in and out; the rest moves up in its order, and what is then
    missing of k is padded with −1 / −inf. Padding inside a list moves to its end.
    """
    queries, database = _numbered(query_sha256, database_sha256)
    keep = (ids >= 0) & (np.append(database, -1)[ids] != queries[:, None])  # (Q, any)
    order = np.argsort(~keep, axis=1, kind="stable")[:, :k]  # (Q, ≤k)
    kept = np.take_along_axis(keep, order, axis=1)
    shape = (len(ids), k)
    new_ids, new_scores = np.full(shape, -1, np.int64), np.full(shape, -np.inf, np.float32)
    width = order.shape[1]
    new_ids[:, :width] = np.where(kept, np.take_along_axis(ids, order, axis=1), -1)
    new_scores[:, :width] = np.where(kept, np.take_along_axis(scores, order, axis=1), -np.inf)
    return new_ids, new_scores


def to_table(
    ids: Ids, scores: Scores, relevant: npt.NDArray[np.bool_], codes: npt.NDArray[np.integer]
) -> pl.DataFrame:
    """The run as a table (columns of SCHEMA), a row a result: sorted by query and rank, no padding.

    ids, scores, relevant (Q, k); codes (N, M), whose rows are written like ``12-3-60-1``.
    """
    query, rank = np.nonzero(ids >= 0)
    items = ids[query, rank]
    columns = {
        "query": query,
        "rank": rank + 1,
        "item": items,
        "score": scores[query, rank],
        "relevant": relevant[query, rank],
        "code": ["-".join(map(str, code)) for code in codes[items].tolist()],
    }
    return pl.DataFrame(columns, schema=SCHEMA)


def from_table(
    table: pl.DataFrame, queries: int, k: int
) -> tuple[Ids, Scores, npt.NDArray[np.bool_]]:
    """ids, scores and relevant (Q, k) of a run's table, padded with −1, −inf and False: the inverse
    of :func:`to_table`. Ranks beyond k are left out."""
    table = table.filter(pl.col("rank") <= k)
    at = table["query"].to_numpy(), table["rank"].to_numpy() - 1
    ids = np.full((queries, k), -1, dtype=np.int64)
    scores = np.full((queries, k), -np.inf, dtype=np.float32)
    relevant = np.zeros((queries, k), dtype=bool)
    ids[at], scores[at], relevant[at] = table["item"], table["score"], table["relevant"]
    return ids, scores, relevant
