"""Whether a new index may take the place of the one that is served: both answer the same queries,
judged by the catalogue as it is now."""

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

SLACK = 1e-9  # a difference of decimals that are equal


@dataclass(frozen=True)
class Answers:
    """What an index found for each query: ``hits`` (Q, k) bool, whether the image at each rank is
    relevant, and ``positives`` (Q,) int64, how many images of today's database are."""

    hits: metrics.Hits
    positives: metrics.Counts


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether the candidate ``passed``, ``why`` in a sentence, and the ``figures`` it rests on."""

    passed: bool
    why: str
    figures: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as JSON can hold it."""
        return asdict(self)


def judge(
    candidate: Answers, champion: Answers | None, settings: Gate, cutoffs: Iterable[int]
) -> Verdict:
    """The candidate passes unless it is worse than the champion by more than ``gate.margin``, or
    worse at all and below ``gate.minimum``; without a champion it must reach that minimum.

    Queries that nothing in the database answers do not count; if there are no others, nothing
    passes, for nothing was compared. ``figures``: the ``metric``, ``margin`` and ``minimum``;
    ``queries`` and those ``without_positive``; ``candidate`` and ``champion`` (None: there is
    none) with precision and hit at every cut-off and the metric; and the candidate's
    ``difference`` from the champion with its ``error``, one standard error of the paired mean.
    """
    own = _values(candidate, settings.metric)
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
    if not len(own):
        why = (
            f"none of the {count['count']:,} queries has a relevant image in the database, so "
            "nothing can be compared: give the source queries of labels that it has"
        )
        return Verdict(passed=False, why=why, figures=figures)
    if champion is None:
        return _first(float(own.mean()), settings, figures)
    gain = own - _values(champion, settings.metric)
    figures["champion"] = _summary(champion, settings.metric, cutoffs)
    figures["difference"] = float(gain.mean())
    figures["error"] = float(gain.std(ddof=1) / np.sqrt(len(gain))) if len(gain) > 1 else 0.0
    return _against(figures, settings)


def _first(value: float, settings: Gate, figures: dict[str, Any]) -> Verdict:
    passed = value >= settings.minimum - SLACK
    needs = f"gate.minimum {settings.minimum:.3f}, which a first release has to reach"
    why = f"{settings.metric} is {value:.3f}, {'above' if passed else 'below'} {needs}"
    return Verdict(passed=passed, why=why, figures=figures)


def _against(figures: dict[str, Any], settings: Gate) -> Verdict:
    value = figures["candidate"][settings.metric]
    other, difference = figures["champion"][settings.metric], figures["difference"]
    why = f"{settings.metric} is {value:.3f}"
    if abs(difference) <= SLACK:
        return Verdict(passed=True, why=f"{why}, as the champion's", figures=figures)
    how = "better" if difference > 0 else "worse"
    why += f", {abs(difference):.3f} ± {figures['error']:.3f} {how} than the champion's {other:.3f}"
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
    """The metric, ``precision/10`` or so, of each query that can be answered."""
    name, k = metric.split("/")
    some = answers.positives > 0
    return metrics.AT_CUTOFF[name](answers.hits[some], answers.positives[some], int(k))


def _summary(answers: Answers, metric: str, cutoffs: Iterable[int]) -> dict[str, float]:
    wanted = [f"{name}/{k}" for name in ("precision", "hit") for k in cutoffs]
    found = {name: _values(answers, name) for name in dict.fromkeys([*wanted, metric])}
    return {name: float(values.mean()) if len(values) else 0.0 for name, values in found.items()}


def compare(workspace: Workspace, params: Params, champion: Path | None) -> Verdict:
    """Asks ``data/index``, the candidate, and the index at ``champion`` (None: there is none yet)
    the catalogue's queries, at most MOST_QUERIES of them, and judges the answers.

    Each index reads the queries by its own models and searches by its own settings. An image that
    has left the catalogue is a miss, and a label is what the catalogue says today. All files of
    both are read and checked. Raises IndexingError if either is damaged or no index, ArtifactError
    if a stage has not run.
    """
    queries, database = asked_about(workspace)
    metric_cutoff = int(params.gate.metric.split("/")[1])
    cutoffs = params.evaluate.cutoffs
    k = max(*cutoffs, metric_cutoff)

    def asked(folder: Path) -> Answers:
        found = ask(folder, queries, database, k, params.compute, workspace)
        return judged(found, queries, database, k)

    candidate = asked(workspace.existing("index"))
    if champion is None:
        return judge(candidate, None, params.gate, cutoffs)
    try:
        known = asked(champion.resolve())
    except IrgenError as error:
        raise IndexingError(
            f"the champion cannot be compared with: {error}; or roll back to another release "
            "(irgen rollback)"
        ) from error
    return judge(candidate, known, params.gate, cutoffs)


def judged(found: Ids, queries: pl.DataFrame, database: pl.DataFrame, k: int) -> Answers:
    """The first k of the answers, judged by the tables of the catalogue; a query itself does not
    count."""
    hashes = [*database["sha256"], ""]  # the last row stands for what has left the catalogue
    labels = [*database["label"], None]
    numbers = {name: row for row, name in enumerate(database["id"])}
    rows = [
        [-1 if name is None else numbers.get(name, len(database)) for name in row] for row in found
    ]
    ids = np.array(rows, dtype=np.int64).reshape(len(queries), -1 if rows else k)
    ids, _ = runs.without_self(ids, np.zeros(ids.shape, np.float32), queries["sha256"], hashes, k)
    positives = runs.positives(
        queries["label"], queries["sha256"], database["label"], database["sha256"]
    )
    return Answers(runs.relevance(ids, queries["label"], labels), positives)
