"""Gate before a release: a new index and the served one answer the same queries, judged by today's
catalogue.

To add a rule for releases, extend ``judge``, and ``Gate`` in ``irgen/params/sections.py`` with its
settings. ``irgen/releases/promote.py`` asks the gate.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from irgen.errors import IndexingError, IrgenError
from irgen.evaluation import metrics
from irgen.evaluation.answer_cache import (
    Ids,
    ask,
    nearest_path,
    read_gate_tables,
    read_nearest,
)
from irgen.evaluation.query_set import QuerySet, RankedLists
from irgen.files import read_parquet
from irgen.params import Gate, Params
from irgen.workspace import Workspace

SLACK = 1e-9  # a difference of decimals that are equal
AUTO = "auto"  # precision, or agreement without labels


@dataclass(frozen=True)
class Answers:
    """Relevance of an index's answers: ``hits`` (Q, k) bool, is the image at this rank relevant?
    ``positives`` (Q,) int64: number of relevant images in today's database.

    ``agreement``: of catalogues without labels, ``agreement/k`` of each query (Q,)."""

    hits: metrics.Hits
    positives: metrics.Counts
    agreement: Mapping[str, metrics.Values] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Decision of the gate: whether the candidate ``passed``, a sentence that says ``why``, and the
    ``figures``."""

    passed: bool
    why: str
    figures: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as JSON can hold it."""
        return asdict(self)


def judge(
    candidate: Answers, champion: Answers | None, settings: Gate, cutoffs: Iterable[int]
) -> Verdict:
    """Pass the candidate unless it is worse than the champion by more than ``gate.margin``, or
    worse at all and below ``gate.minimum``. Without a champion it must reach that minimum.

    Queries that nothing in the database answers do not count. If there are no others, the candidate
    fails, because nothing was compared. ``figures``: ``metric``, ``margin`` and ``minimum``; the
    number of ``queries`` and of those ``without_positive``; ``candidate`` and ``champion`` (None
    without one) with precision and hit at every cut-off and the metric; the candidate's
    ``difference`` from the champion with its ``error``, one standard error of the paired mean.
    """
    values = _values(candidate, settings.metric)
    count = metrics.count_queries(candidate.positives)
    if candidate.agreement:
        count["without_positive"] = 0  # nothing is relevant, and every query counts
    figures: dict[str, Any] = {
        "metric": settings.metric,
        "margin": settings.margin,
        "minimum": settings.minimum,
        "queries": count["count"],
        "without_positive": count["without_positive"],
        "candidate": _summary(candidate, settings.metric, cutoffs),
        "champion": None,
    }
    if not len(values):
        why = (
            f"none of the {count['count']:,} queries has a relevant image in the database, so "
            "nothing can be compared: give the source queries of labels that it has"
        )
        if candidate.agreement:
            why = "no query has a neighbour in the database, so nothing can be compared: add images"
        return Verdict(passed=False, why=why, figures=figures)
    if champion is None:
        return _judge_first(float(values.mean()), settings, figures)
    gain = values - _values(champion, settings.metric)
    figures["champion"] = _summary(champion, settings.metric, cutoffs)
    figures["difference"] = float(gain.mean())
    figures["error"] = float(gain.std(ddof=1) / np.sqrt(len(gain))) if len(gain) > 1 else 0.0
    return _judge_against_champion(figures, settings)


def _judge_first(value: float, settings: Gate, figures: dict[str, Any]) -> Verdict:
    passed = value >= settings.minimum - SLACK
    needs = f"gate.minimum {settings.minimum:.3f}, which a first release has to reach"
    why = f"{settings.metric} is {value:.3f}, {'above' if passed else 'below'} {needs}"
    return Verdict(passed=passed, why=why, figures=figures)


def _judge_against_champion(figures: dict[str, Any], settings: Gate) -> Verdict:
    value = figures["candidate"][settings.metric]
    other, difference = figures["champion"][settings.metric], figures["difference"]
    why = f"{settings.metric} is {value:.3f}"
    if abs(difference) <= SLACK:
        return Verdict(passed=True, why=f"{why}, as the champion's", figures=figures)
    sign = "better" if difference > 0 else "worse"
    why += (
        f", {abs(difference):.3f} ± {figures['error']:.3f} {sign} than the champion's {other:.3f}"
    )
    if difference > 0:
        return Verdict(passed=True, why=why, figures=figures)
    if -difference > settings.margin + SLACK:
        why += f"; gate.margin allows {settings.margin:.3f}"
        return Verdict(passed=False, why=why, figures=figures)
    if value < settings.minimum - SLACK:
        why += f" and below gate.minimum {settings.minimum:.3f}"
        return Verdict(passed=False, why=why, figures=figures)
    why += f", which gate.margin {settings.margin:.3f} allows"
    return Verdict(passed=True, why=why, figures=figures)


def _values(answers: Answers, metric: str) -> metrics.Values:
    """Return the metric, such as ``precision/10``, of each query that has a positive; agreement, of
    each query."""
    if metric in answers.agreement:
        return answers.agreement[metric]
    name, k = metric.split("/")
    answerable = answers.positives > 0
    return metrics.AT_CUTOFF[name](answers.hits[answerable], answers.positives[answerable], int(k))


def _summary(answers: Answers, metric: str, cutoffs: Iterable[int]) -> dict[str, float]:
    shown = ("agreement",) if answers.agreement else ("precision", "hit")
    names = [f"{name}/{k}" for name in shown for k in cutoffs]
    return metrics.means({name: _values(answers, name) for name in dict.fromkeys([*names, metric])})


def choose_metric(metric: str, queries: pl.DataFrame, cutoffs: Iterable[int]) -> str:
    """Return the metric to compare: ``auto`` means precision, or agreement if no query has a label,
    at the cut-off nearest to 10.

    >>> unlabelled = pl.DataFrame({"label": [None]}, schema={"label": pl.String})
    >>> choose_metric("auto", unlabelled, (1, 10, 20))
    'agreement/10'
    """
    if metric != AUTO:
        return metric
    labelled = queries["label"].null_count() < len(queries)
    return f"{'precision' if labelled else 'agreement'}/{metrics.main_cutoff(cutoffs)}"


def list_inputs(workspace: Workspace, params: Params) -> list[Path]:
    """Return the files beside the indexes that a verdict depends on."""
    tables = [workspace.existing("catalog", f"{name}.parquet") for name in ("queries", "database")]
    metric = choose_metric(params.gate.metric, read_parquet(tables[0]), params.evaluate.cutoffs)
    return [*tables, nearest_path(workspace)] if metric.startswith("agreement/") else tables


def compare(workspace: Workspace, params: Params, champion: Path | None) -> Verdict:
    """Ask the candidate, ``data/index``, and the index at ``champion`` the catalogue's queries, at
    most MAX_QUERIES of them, and judge the answers. ``champion``: None before the first release.

    Each index reads the queries by its own models and searches by its own settings. An image that
    has left the catalogue is a miss. Labels are those of today's catalogue; so are the neighbours
    that answers without labels should agree with (``choose_metric``). All files of both are
    verified. Raises IndexingError if either is damaged or no index, ArtifactError if a stage has
    not run.
    """
    queries, database = read_gate_tables(workspace)
    cutoffs, k = params.evaluate.cutoffs, max(params.evaluate.cutoffs)
    metric = choose_metric(params.gate.metric, queries, cutoffs)
    settings = replace(params.gate, metric=metric)
    nearest = read_nearest(workspace, k) if metric.startswith("agreement/") else None

    def ask_index(folder: Path) -> Answers:
        ids = ask(folder, queries, database, k, params.compute, workspace)
        return judge_answers(ids, queries, database, cutoffs, nearest)

    candidate = ask_index(workspace.existing("index"))
    if champion is None:
        return judge(candidate, None, settings, cutoffs)
    try:
        champion_answers = ask_index(champion.resolve())
    except IrgenError as error:
        raise IndexingError(
            f"the champion cannot be compared with: {error}; or roll back to another release "
            "(irgen rollback)"
        ) from error
    return judge(candidate, champion_answers, settings, cutoffs)


def judge_answers(
    answers: Ids,
    queries: pl.DataFrame,
    database: pl.DataFrame,
    cutoffs: Iterable[int],
    nearest: npt.NDArray[np.int64] | None = None,
) -> Answers:
    """Mark the first answers relevant or not by the catalogue's tables, as many as the largest
    cut-off. The query itself does not count. ``nearest`` (Q, k): if given, measure agreement with
    these rows of the database."""
    cutoffs = tuple(cutoffs)
    k = max(cutoffs)
    row_of = {name: row for row, name in enumerate(database["id"])}
    gone = len(database)  # one more row stands for images that have left the catalogue
    rows = [[-1 if name is None else row_of.get(name, gone) for name in row] for row in answers]
    ids = np.array(rows, dtype=np.int64).reshape(len(queries), -1 if rows else k)
    columns = database.select("label", "sha256")
    columns = pl.concat([columns, pl.DataFrame({"label": [None], "sha256": [""]}, columns.schema)])
    query_set = QuerySet.build(queries, columns, k)
    lists = query_set.drop_self(RankedLists(ids, np.zeros(ids.shape, np.float32)), k)
    agreement = {}
    if nearest is not None:
        agreement = {
            f"agreement/{k}": metrics.agreement_by_query(lists.ids, nearest, k) for k in cutoffs
        }
    return Answers(query_set.mark_relevant(lists.ids), query_set.positives, agreement)
