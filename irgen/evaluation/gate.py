"""Gate before a release: a new index and the served one answer the same queries, judged by today's
catalogue.

To add a rule for releases, extend ``judge``, and ``Gate`` in ``irgen/params/sections.py`` with its
settings. ``irgen/releases/promote.py`` asks the gate.
"""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from irgen.errors import IndexingError, IrgenError
from irgen.evaluation import metrics
from irgen.evaluation.answer_cache import nearest_path
from irgen.evaluation.answers import Answers, GateQueries
from irgen.evaluation.query_set import read_queries
from irgen.files.sealed import read_parquet
from irgen.files.workspace import Workspace
from irgen.params import Gate, Params

SLACK = 1e-9  # a difference of decimals that are equal
AUTO = "auto"  # precision, or agreement without labels


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
    candidate: Answers,
    champion: Answers | None,
    settings: Gate,
    cutoffs: Iterable[int],
    name: str = "the champion's",
) -> Verdict:
    """Pass the candidate unless it is worse than the champion by more than ``gate.margin``, or
    worse at all and below ``gate.minimum``. Without a champion it must reach that minimum.

    Queries that nothing in the database answers do not count. If there are no others, the candidate
    fails, because nothing was compared. ``figures``: ``metric``, ``margin`` and ``minimum``; the
    number of ``queries`` and of those ``without_positive``; ``candidate`` and ``champion`` (None
    without one) with precision and hit at every cut-off and the metric; the candidate's
    ``difference`` from the champion with its ``error``, one standard error of the paired mean.
    ``name``: what to call the champion's value.
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
    return _judge_against_champion(figures, settings, name)


def _judge_first(value: float, settings: Gate, figures: dict[str, Any]) -> Verdict:
    passed = value >= settings.minimum - SLACK
    needs = f"gate.minimum {settings.minimum:.3f}, which a first release has to reach"
    why = f"{settings.metric} is {value:.3f}, {'above' if passed else 'below'} {needs}"
    return Verdict(passed=passed, why=why, figures=figures)


def _judge_against_champion(figures: dict[str, Any], settings: Gate, name: str) -> Verdict:
    value = figures["candidate"][settings.metric]
    other, difference = figures["champion"][settings.metric], figures["difference"]
    why = f"{settings.metric} is {value:.3f}"
    if abs(difference) <= SLACK:
        return Verdict(passed=True, why=f"{why}, as {name}", figures=figures)
    sign = "better" if difference > 0 else "worse"
    error = figures["error"]
    why += f", {abs(difference):.3f} ± {error:.3f} {sign} than {name} {other:.3f}"
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


def compare(
    workspace: Workspace, params: Params, champion: Path | None, best: Path | None = None
) -> Verdict:
    """Ask the candidate, ``data/index``, and the index at ``champion`` the catalogue's queries, at
    most MAX_QUERIES of them, and judge the answers. ``champion``: None before the first release.
    ``best``: another release that was better than the champion, if there is one.

    Both search among the images of the champion that are still in the catalogue. So an image that
    has left, or that the champion could not hold, is nobody's miss. Then the candidate must not be
    worse in two more ways: among all its images, so that new ones do not crowd out the right
    answers; and than ``best``, so that losses within the margin do not add up. If no query has a
    relevant image in common, the candidate is judged as a first index.

    Each index reads the queries by its own models and searches by its own settings. Labels are
    those of today's catalogue; so are the neighbours that answers without labels should agree with
    (``choose_metric``). All files are verified. Raises IndexingError if candidate or champion is
    damaged or no index, ArtifactError if a stage has not run.
    """
    cutoffs = params.evaluate.cutoffs
    queries = read_queries(workspace, params.evaluate)
    metric = choose_metric(params.gate.metric, queries, cutoffs)
    settings = replace(params.gate, metric=metric)
    asked = GateQueries.read(workspace, params.compute, metric, params.evaluate)
    candidate = workspace.existing("index")
    whole = asked.ask(candidate)
    if champion is None:
        return judge(whole, None, settings, cutoffs)
    try:
        own, others = asked.ask_both(candidate, champion.resolve())
    except IrgenError as error:
        raise IndexingError(
            f"the champion cannot be compared with: {error}; or roll back to another release "
            "(irgen rollback)"
        ) from error
    if not len(_values(own, metric)):
        return judge(whole, None, settings, cutoffs)
    verdicts = [judge(own, others, settings, cutoffs)]
    if asked.nearest is None:
        name = "the champion's, with the new images among the answers,"
        verdicts.append(judge(whole.count_only(own), others, settings, cutoffs, name))
    if best is not None:
        verdicts += _judge_against_best(asked, candidate, best, settings)
    failed = next((verdict for verdict in verdicts if not verdict.passed), verdicts[0])
    return replace(verdicts[0], passed=failed.passed, why=failed.why)


def _judge_against_best(
    asked: GateQueries, candidate: Path, best: Path, settings: Gate
) -> list[Verdict]:
    """Return the verdict on the candidate against the best release; none if that release cannot be
    read, since it is not served, or if no query has a relevant image in common."""
    with suppress(IrgenError):
        own, others = asked.ask_both(candidate, best)
        if len(_values(own, settings.metric)):
            name = f"{best.name}'s, the best of the recent releases:"
            return [judge(own, others, settings, asked.cutoffs, name)]
    return []
