"""Queries and the database they search: which results are relevant, and how many to ask for."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from irgen.catalog.table import read_table
from irgen.evaluation.sample import draw_sample
from irgen.files.sealed import read_parquet
from irgen.files.workspace import Workspace
from irgen.params import Evaluate

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
    number of ranks for map@R and recall; ``total``: number of queries that these are a sample of.
    """

    queries: pl.DataFrame
    database: pl.DataFrame
    positives: Ids
    depth: int
    total: int

    @classmethod
    def build(
        cls,
        queries: pl.DataFrame,
        database: pl.DataFrame,
        min_depth: int,
        total: int | None = None,
    ) -> "QuerySet":
        """Count positives; the depth is the largest R, within ``min_depth`` and MAX_DEPTH.
        ``total``: by default the queries are no sample."""
        positives = count_positives(
            queries["label"], queries["sha256"], database["label"], database["sha256"]
        )
        depth = max(min_depth, min(int(positives.max(initial=1)), MAX_DEPTH))
        return cls(queries, database, positives, depth, len(queries) if total is None else total)

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


def read_query_set(workspace: Workspace, settings: Evaluate) -> QuerySet:
    """Read the catalogue's database and the queries that are measured."""
    queries = read_table(workspace.existing("catalog", "queries.parquet"))
    return sample_query_set(queries, read_database(workspace), settings)


def sample_query_set(queries: pl.DataFrame, database: pl.DataFrame, settings: Evaluate) -> QuerySet:
    """Return the set of those ``queries`` of the catalogue that are measured."""
    sample = queries[draw_sample(queries, settings.queries)]
    return QuerySet.build(sample, database, max(settings.cutoffs), len(queries))


def read_queries(workspace: Workspace, settings: Evaluate) -> pl.DataFrame:
    """Read the queries that are measured."""
    queries = read_table(workspace.existing("catalog", "queries.parquet"))
    return queries[draw_sample(queries, settings.queries)]


def read_database(workspace: Workspace) -> pl.DataFrame:
    """Read the catalogue's table of the database."""
    return read_table(workspace.existing("catalog", "database.parquet"))


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
    return _mark_equal(ids, _texts(query_labels), _texts(database_labels))


def _mark_equal(ids: Ids, queries: pl.Series, database: pl.Series) -> Flags:
    """Return which results (Q, k) have the text of their query: of ``queries`` (Q,) and
    ``database`` (N,), where null equals nothing. Time: in proportion to the results, not to N."""
    rows = pl.Series(ids.ravel())
    results = database.gather(rows.set(rows < 0, None))  # (Q · k,), null where there is none
    expected = queries.gather(np.arange(len(ids)).repeat(ids.shape[1]))
    return (results == expected).fill_null(False).to_numpy().reshape(ids.shape)


def _texts(column: Labels | Hashes) -> pl.Series:
    return pl.Series("", column, dtype=pl.String)


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
    queries, database = (
        pl.DataFrame({"label": _texts(labels), "sha256": _texts(hashes)})
        for labels, hashes in (
            (query_labels, query_sha256),
            (database_labels, database_sha256),
        )
    )
    counts = queries
    for columns in (["label"], ["label", "sha256"]):  # all of the label, and the copies
        groups = database.join(queries, on=columns, how="semi").group_by(columns)
        sizes = groups.agg(pl.len().cast(pl.Int64).alias(f"of {len(columns)}"))
        counts = counts.join(sizes, on=columns, how="left", maintain_order="left")
    difference = pl.col("of 1").fill_null(0) - pl.col("of 2").fill_null(0)
    return counts.select(difference).to_series().to_numpy().copy()


def search_depth(k: int, query_sha256: Hashes, database_sha256: Hashes) -> int:
    """Return how many results to ask for, so that k are left after :func:`drop_self`. It makes
    room for at most MAX_COPIES copies of a query.

    >>> search_depth(10, ["x", "y"], ["x", "x", "z"])
    12
    """
    database = _texts(database_sha256)
    copies = database.filter(database.is_in(_texts(query_sha256).unique().implode()))
    most = copies.value_counts()["count"].max()
    return k + min(most if isinstance(most, int) else 0, MAX_COPIES)


def drop_self(
    ids: Ids, scores: Scores, query_sha256: Hashes, database_sha256: Hashes, k: int
) -> tuple[Ids, Scores]:
    """Return the first k results of each query that are not the query itself, by content hash.

    ids and scores (Q, any) → (Q, k). The rest moves up in order; −1 / −inf fill the end.
    """
    keep = (ids >= 0) & ~_mark_equal(ids, _texts(query_sha256), _texts(database_sha256))
    order = np.argsort(~keep, axis=1, kind="stable")[:, :k]  # (Q, ≤k)
    kept = np.take_along_axis(keep, order, axis=1)
    shape, width = (len(ids), k), order.shape[1]
    new_ids, new_scores = np.full(shape, -1, np.int64), np.full(shape, -np.inf, np.float32)
    new_ids[:, :width] = np.where(kept, np.take_along_axis(ids, order, axis=1), -1)
    new_scores[:, :width] = np.where(kept, np.take_along_axis(scores, order, axis=1), -np.inf)
    return new_ids, new_scores
