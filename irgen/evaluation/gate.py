"""The gate: may a new index replace the one that is served? Both answer the same queries, judged by
the catalogue as it is now."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from irgen.errors import IndexingError, IrgenError
from irgen.evaluation import metrics, runs
from irgen.evaluation.answers import Ids, ask, asked_about
from irgen.params import Gate, Params
from irgen.workspace import Workspace

SLACK = 1e-9  # rounding error between equal metrics


@dataclass(frozen=True)
class Answers:
    """The judged answers of an index: ``hits`` (Q, k) bool, whether the image at each rank is
    relevant; ``positives`` (Q,) int64, the number of relevant images in today's database."""

    hits: metrics.Hits
    positives: metrics.Counts


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether the candidate ``passed``, ``why`` in a sentence, and the ``figures`` behind it."""

    passed: bool
    why: str
    figures: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as JSON can hold it."""
        return asdict(self)


def judge(
    candidate: Answers, champion: Answers | None, settings: Gate, cutoffs: Iterable[int]
) -> Verdict:
    """Let the candidate pass unless it is worse than the champion by more than ``gate.margin``, or
    worse at all and below ``gate.minimum``. Without a champion it must reach that minimum.

    Queries without a relevant image in the database do not count; if there are no others, nothing
    passes. ``figures``: the ``metric``, ``margin`` and ``minimum``;
    ``queries`` and those ``without_positive``; ``candidate`` and ``champion`` (None: there is
    none) with precision and hit at every cut-off and the metric; and the candidate's
    ``difference`` from the champion with its ``error``, one standard error of the paired mean.
    """
    values = _compute(candidate, settings.metric)
    count = metrics.count_queries(candidate.positives)
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
            f"none of the {count['count']:,} queries has a relevant image in the database: add "
            "queries with labels that the database has"
        )
        return Verdict(passed=False, why=why, figures=figures)
    if champion is None:
        return _judge_alone(figures, settings)
    gain = values - _compute(champion, settings.metric)
    figures["champion"] = _summary(champion, settings.metric, cutoffs)
    figures["difference"] = float(gain.mean())
    figures["error"] = float(gain.std(ddof=1) / np.sqrt(len(gain))) if len(gain) > 1 else 0.0
    return _judge_against(figures, settings)


def _judge_alone(figures: dict[str, Any], settings: Gate) -> Verdict:
    value = figures["candidate"][settings.metric]
    passed = value >= settings.minimum - SLACK
    needed = f"gate.minimum {settings.minimum:.3f}, which a first release has to reach"
    why = f"{settings.metric} is {value:.3f}, {'above' if passed else 'below'} {needed}"
    return Verdict(passed=passed, why=why, figures=figures)


def _judge_against(figures: dict[str, Any], settings: Gate) -> Verdict:
    value = figures["candidate"][settings.metric]
    other, difference = figures["champion"][settings.metric], figures["difference"]
    why = f"{settings.metric} is {value:.3f}"
    if abs(difference) <= SLACK:
        return Verdict(passed=True, why=f"{why}, like the champion's", figures=figures)
    comparison = "better" if difference > 0 else "worse"
    error = figures["error"]
    why += f", {abs(difference):.3f} ± {error:.3f} {comparison} than the champion's {other:.3f}"
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


def _compute(answers: Answers, metric: str) -> metrics.Values:
    """Return a metric such as ``precision/10`` for each query with a relevant image."""
    name, k = metric.split("/")
    answerable = answers.positives > 0
    hits, positives = answers.hits[answerable], answers.positives[answerable]
    return metrics.AT_CUTOFF[name](hits, positives, int(k))


def _summary(answers: Answers, metric: str, cutoffs: Iterable[int]) -> dict[str, float]:
    wanted = [f"{name}/{k}" for name in ("precision", "hit") for k in cutoffs]
    values = {name: _compute(answers, name) for name in dict.fromkeys([*wanted, metric])}
    return {name: float(each.mean()) if len(each) else 0.0 for name, each in values.items()}


def compare(workspace: Workspace, params: Params, champion: Path | None) -> Verdict:
    """Search ``data/index``, the candidate, and the index at ``champion`` (None: there is none)
    with the catalogue's queries, and judge the answers.

    Each index encodes the queries with its own models and searches with its own settings. An image
    that has left the catalogue is a miss; labels are those of today's catalogue. All files of both
    are read and checked. Raise IndexingError if either is damaged or no index, ArtifactError if a
    stage has not run.
    """
    queries, database = asked_about(workspace)
    metric_cutoff = int(params.gate.metric.split("/")[1])
    cutoffs = params.evaluate.cutoffs
    k = max(*cutoffs, metric_cutoff)

    def search(folder: Path) -> Answers:
        ids = ask(folder, queries, database, k, params.compute, workspace)
        return judge_answers(ids, queries, database, k)

    candidate = search(workspace.existing("index"))
    if champion is None:
        return judge(candidate, None, params.gate, cutoffs)
    try:
        served = search(champion.resolve())
    except IrgenError as error:
        raise IndexingError(
            f"the champion cannot be compared with: {error}; or roll back to another release "
            "(irgen rollback)"
        ) from error
    return judge(candidate, served, params.gate, cutoffs)


def judge_answers(ids: Ids, queries: pl.DataFrame, database: pl.DataFrame, k: int) -> Answers:
    """Judge the first k ``ids`` of each query by the tables of the catalogue; a query itself does
    not count."""
    hashes = [*database["sha256"], ""]  # the last row stands for images that left the catalogue
    labels = [*database["label"], None]
    row_of = {name: row for row, name in enumerate(database["id"])}
    found = [
        [-1 if name is None else row_of.get(name, len(database)) for name in names] for names in ids
    ]
    rows = np.array(found, dtype=np.int64).reshape(len(queries), -1 if found else k)  # (Q, k)
    scores = np.zeros(rows.shape, np.float32)
    rows, _ = runs.without_self(rows, scores, queries["sha256"], hashes, k)
    positives = runs.positives(
        queries["label"], queries["sha256"], database["label"], database["sha256"]
    )
    return Answers(runs.relevance(rows, queries["label"], labels), positives)
