"""List pairs of labels that a search confuses, and the precision that this costs."""

import polars as pl

from irgen.evaluation.query_set import Labels


def confusions(
    run: pl.DataFrame, query_labels: Labels, database_labels: Labels, k: int, n: int
) -> pl.DataFrame:
    """Return the n pairs of labels that cost a run most precision@k, most costly first.

    Columns: ``query_label``; ``result_label``, of an irrelevant result; ``misses``, number of such
    results in the top k; ``queries`` that have one; ``cost``, misses / (k · Q), by which they lower
    mean precision@k over all Q queries. Ties by label. Missing results and queries without a label
    are not counted.
    """
    queries = (
        pl.DataFrame({"query_label": query_labels})
        .with_row_index("query")
        .filter(pl.col("query_label").is_not_null())
    )
    items = pl.DataFrame({"result_label": database_labels}).with_row_index("item")
    return (
        run.filter((pl.col("rank") <= k) & ~pl.col("relevant"))
        .join(queries.cast({"query": pl.Int64}), on="query")
        .join(items.cast({"item": pl.Int64}), on="item")
        .group_by("query_label", "result_label")
        .agg(pl.len().cast(pl.Int64).alias("misses"), pl.col("query").n_unique().alias("queries"))
        .with_columns(cost=pl.col("misses") / (k * max(len(queries), 1)))
        .sort(["misses", "query_label", "result_label"], descending=[True, False, False])
        .head(n)
    )
