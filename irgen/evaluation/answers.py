"""Answers of an index to the gate's queries, and which of them are relevant."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from irgen.evaluation import metrics
from irgen.evaluation.answer_cache import Ids, ask, read_gate_tables, read_ids, read_nearest
from irgen.evaluation.query_set import QuerySet, RankedLists
from irgen.files.workspace import Workspace
from irgen.params import Compute, Evaluate


@dataclass(frozen=True)
class Answers:
    """Relevance of an index's answers: ``hits`` (Q, k) bool, is the image at this rank relevant?
    ``positives`` (Q,) int64: number of relevant images in the database.

    ``agreement``: of catalogues without labels, ``agreement/k`` of each query (Q,)."""

    hits: metrics.Hits
    positives: metrics.Counts
    agreement: Mapping[str, metrics.Values] = field(default_factory=dict)

    def count_only(self, answerable: "Answers") -> "Answers":
        """Return these answers; only queries with a positive in ``answerable`` count."""
        return replace(self, positives=np.where(answerable.positives > 0, self.positives, 0))


@dataclass(frozen=True, kw_only=True)
class GateQueries:
    """Queries of the gate, the catalogue that judges the answers, and, without labels, the rows of
    the database ``nearest`` to each query."""

    workspace: Workspace
    compute: Compute
    cutoffs: tuple[int, ...]
    queries: pl.DataFrame
    database: pl.DataFrame
    nearest: npt.NDArray[np.int64] | None

    @classmethod
    def read(
        cls, workspace: Workspace, compute: Compute, metric: str, settings: Evaluate
    ) -> "GateQueries":
        """Read them from the workspace; nearest images only for an agreement."""
        queries, database = read_gate_tables(workspace, settings)
        return cls(
            workspace=workspace,
            compute=compute,
            cutoffs=settings.cutoffs,
            queries=queries,
            database=database,
            nearest=read_nearest(workspace, settings) if metric.startswith("agreement/") else None,
        )

    def ask(self, index: Path, common: Collection[str] | None = None) -> Answers:
        """Ask an index, among the ``common`` images or all of its own, and judge the answers. Raise
        IndexingError if it is damaged or missing."""
        k = max(self.cutoffs)
        ids = ask(
            index, self.queries, self.database, k, self.compute, self.workspace, allowed=common
        )
        return judge_answers(ids, self.queries, self.database, self.cutoffs, self.nearest, common)

    def ask_both(self, candidate: Path, other: Path) -> tuple[Answers, Answers]:
        """Ask the candidate and another index among the images of the catalogue that the other one
        holds. Raise as ``ask`` does."""
        common = set(self.database["id"]).intersection(read_ids(other))
        return self.ask(candidate, common), self.ask(other, common)


def judge_answers(
    answers: Ids,
    queries: pl.DataFrame,
    database: pl.DataFrame,
    cutoffs: Iterable[int],
    nearest: npt.NDArray[np.int64] | None = None,
    common: Collection[str] | None = None,
) -> Answers:
    """Mark the first answers relevant or not by the catalogue's tables, as many as the largest
    cut-off. The query itself does not count, and an image that is not in the catalogue is a miss.

    ``nearest`` (Q, k): if given, measure agreement with these rows of the database. ``common``: ids
    of the images that count as positives or as nearest; by default all of the database.
    """
    cutoffs = tuple(cutoffs)
    k = max(cutoffs)
    row_of = {name: row for row, name in enumerate(database["id"])}
    gone = len(database)  # one more row stands for images that are not in the catalogue
    rows = [[-1 if name is None else row_of.get(name, gone) for name in row] for row in answers]
    ids = np.array(rows, dtype=np.int64).reshape(len(queries), -1 if rows else k)
    columns = database.select("label", "sha256")
    columns = pl.concat([columns, pl.DataFrame({"label": [None], "sha256": [""]}, columns.schema)])
    query_set = QuerySet.build(queries, columns, k)
    lists = query_set.drop_self(RankedLists(ids, np.zeros(ids.shape, np.float32)), k)
    hits, positives = query_set.mark_relevant(lists.ids), query_set.positives
    if common is not None:
        counted = database["id"].is_in(list(common))
        positives = QuerySet.build(queries, database.filter(counted), k).positives
        if nearest is not None:
            nearest = np.where(np.append(counted.to_numpy(), False)[nearest], nearest, -1)
    agreement = {}
    if nearest is not None:
        agreement = {
            f"agreement/{k}": metrics.agreement_by_query(lists.ids, nearest, k) for k in cutoffs
        }
    return Answers(hits, positives, agreement)
