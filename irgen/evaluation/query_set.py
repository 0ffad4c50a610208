"""Queries and the database they search: which results are relevant, and how many to ask for."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from irgen.catalog.table import read_table
from irgen.files.sealed import read_parquet
from irgen.files.workspace import Workspace

Ids = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]
Labels = Sequence[str | None] | pl.Series
Hashes = Sequence[str] | pl.Series

MAX_DEPTH = 1000  # ranks; map@R of a label with more positives counts the rest as missed
FEWEST_COPIES = 20  # pairs of near copies that a share is taken of
MAX_COPIES = 100  # copies of a query to make room for: a placeholder image may be there very often


@dataclass(frozen=True)
class RankedLists:
    """Results of all queries, best first: ``ids`` (Q, k) int64 database rows, −1 at the end of a
    shorter list; ``scores`` (Q, k) float32, −inf there."""

    ids: Ids
    scores: Scores


@dataclass(frozen=True)
class QuerySet:
    """Queries and database of a catalogue. ``positives`` (Q,) int64: R of each query; ``depth``:
    number of ranks for map@R and recall."""

    queries: pl.DataFrame
    database: pl.DataFrame
    positives: Ids
    depth: int

    @classmethod
    def build(cls, queries: pl.DataFrame, database: pl.DataFrame, min_depth: int) -> "QuerySet":
        """Count positives; the depth is the largest R, within ``min_depth`` and MAX_DEPTH."""
        positives = count_positives(
            queries["label"], queries["sha256"], database["label"], database["sha256"]
        )
        depth = max(min_depth, min(int(positives.max(initial=1)), MAX_DEPTH))
        return cls(queries, database, positives, depth)

    @property
    def labelled(self) -> bool:
        """Tell whether any query has a label."""
        return self.queries["label"].null_count() < len(self.queries)

    def search_depth(self, k: int) -> int:
        """Return how many results to ask for, so that k are left after :func:`drop_self`."""
        return search_depth(k, self.queries["sha256"], self.database["sha256"])

    def drop_self(self, lists: RankedLists, k: int) -> RankedLists:
        """Return the first k of the lists without the queries themselves, (Q, k)."""
        ids, scores = drop_self(
            lists.ids, lists.scores, self.queries["sha256"], self.database["sha256"], k
        )
        return RankedLists(ids, scores)

    def mark_relevant(self, ids: Ids) -> Flags:
        """Return which results (Q, k) have their query's label."""
        return mark_relevant(ids, self.queries["label"], self.database["label"])


def read_query_set(workspace: Workspace, min_depth: int) -> QuerySet:
    """Read the catalogue's queries and database."""
    return QuerySet.build(*read_query_tables(workspace), min_depth)


def read_query_tables(workspace: Workspace) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Read the catalogue's tables of queries and database."""
    queries, database = (
        read_table(workspace.existing("catalog", f"{role}.parquet"))
        for role in ("queries", "database")
    )
    return queries, database


def read_copies(workspace: Workspace, query_set: QuerySet) -> Ids:
    """Read the pairs of a query and a database image that is nearly the same picture, as the stage
    ``catalog`` finds them by their fingerprints: rows (n, 2) int64. Equal files are no pairs: a
    query never counts them. Fewer than FEWEST_COPIES say nothing: then there are none."""
    leaks = read_parquet(workspace.existing("catalog", "leaks.parquet"))
    pairs = leaks.filter(kind="near_image").select("query", "image")
    for name, table in (("query", query_set.queries), ("image", query_set.database)):
        rows = table.select(pl.col("id").alias(name)).with_row_index(f"{name} row")
        pairs = pairs.join(rows, on=name)
    pairs = pairs if len(pairs) >= FEWEST_COPIES else pairs.clear()
    return pairs.select("query row", "image row").sort(pl.all()).to_numpy().astype(np.int64)


def mark_relevant(ids: Ids, query_labels: Labels, database_labels: Labels) -> Flags:
    """Return which results (Q, k) have their query's label. Padding (−1) is not relevant. For a
    query without a label (null), no result is.

    >>> mark_relevant(np.array([[1, 0, -1]]), ["a"], ["b", "a"]).tolist()
    [[True, False, False]]
    """
    queries, database = _number(query_labels, database_labels)
    labels = np.append(database, -1)[ids]  # (Q, k); row −1 is the filler at the end
    return (labels == queries[:, None]) & (labels >= 0) & (ids >= 0)


def _number(*columns: Labels | Hashes) -> list[Ids]:
    """Number the texts of all columns: equal texts get equal numbers, null gets −1.

    >>> [column.tolist() for column in _number(["b", None], ["a", "b"])]
    [[1, -1], [0, 1]]
    """
    texts = pl.concat([pl.Series("", column, dtype=pl.String) for column in columns])
    numbers = texts.rank("dense").cast(pl.Int64).fill_null(0).to_numpy() - 1
    return np.split(numbers, np.cumsum([len(column) for column in columns])[:-1])


def count_positives(
    query_labels: Labels,
    query_sha256: Hashes,
    database_labels: Labels,
    database_sha256: Hashes,
) -> Ids:
    """Return R (Q,): database images with the query's label, copies of the query not counted.

    A copy is an image with the same content hash. A query without a label (null) has none.

    >>> count_positives(["a", "b"], ["x", "y"], ["a", "a", "a"], ["x", "v", "w"]).tolist()
    [2, 0]
    """
    of_label = Counter(database_labels)
    copies = Counter(zip(database_labels, database_sha256, strict=True))
    pairs = zip(query_labels, query_sha256, strict=True)
    counts = [0 if x is None else of_label[x] - copies[x, sha] for x, sha in pairs]
    return np.array(counts, dtype=np.int64)


def search_depth(k: int, query_sha256: Hashes, database_sha256: Hashes) -> int:
    """Return how many results to ask for, so that k are left after :func:`drop_self`. It makes
    room for at most MAX_COPIES copies of a query.

    >>> search_depth(10, ["x", "y"], ["x", "x", "z"])
    12
    """
    copies = Counter(database_sha256)
    return k + min(max((copies[sha] for sha in query_sha256), default=0), MAX_COPIES)


def drop_self(
    ids: Ids, scores: Scores, query_sha256: Hashes, database_sha256: Hashes, k: int
) -> tuple[Ids, Scores]:
    """Return the first k results of each query that are not the query itself, by content hash.

    ids and scores (Q, any) → (Q, k). The rest moves up in order; −1 / −inf fill the end.
    """
    queries, database = _number(query_sha256, database_sha256)
    keep = (ids >= 0) & (np.append(database, -1)[ids] != queries[:, None])  # (Q, any)
    order = np.argsort(~keep, axis=1, kind="stable")[:, :k]  # (Q, ≤k)
    kept = np.take_along_axis(keep, order, axis=1)
    shape, width = (len(ids), k), order.shape[1]
    new_ids, new_scores = np.full(shape, -1, np.int64), np.full(shape, -np.inf, np.float32)
    new_ids[:, :width] = np.where(kept, np.take_along_axis(ids, order, axis=1), -1)
    new_scores[:, :width] = np.where(kept, np.take_along_axis(scores, order, axis=1), -np.inf)
    return new_ids, new_scores
