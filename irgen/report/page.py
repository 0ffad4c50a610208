"""The report as one HTML page that needs nothing else: no request, no script, images inside."""

import re
from dataclasses import dataclass
from importlib import resources
from typing import Any

import jinja2
import polars as pl
from markupsafe import Markup

from irgen.evaluation import calibration
from irgen.report import comparison, figures
from irgen.report.comparison import METHODS, Measured
from irgen.report.gallery import Example
from irgen.search.calibration import Calibration, Uncalibrated

PARTS = ("page.css", "gallery.html", "definitions.html")  # that pages include

DEFINITIONS = {
    "P@k": "Precision: relevant images among the first k, divided by k.",
    "precision_capped@k": "The same, divided by min(k, R): 1 where nothing better was possible.",
    "precision_irgen@k": (
        "The rule of the paper's code: if all R ≥ 2 relevant images are within the first k, "
        "divided by the rank of the last of them, else by k. Only to compare with its tables."
    ),
    "hit@k": "Share of queries with at least one relevant image among the first k.",
    "recall@k": "Relevant images among the first k, divided by R.",
    "mAP@R": "Mean over queries of the average precision over the first R ranks, divided by R.",
    "agreement@k": "Without labels: share of the k nearest by pretrained features that is found.",
    "invalid": "Without the trie: share of the written identifiers that no image has.",
    "ms search": "Milliseconds a query, asked in batches: from its encoding to its results.",
    "ms with encoding": "The same, from the decoded image on.",
    "bytes/image": "What a method keeps in memory for each image of the database.",
}


@dataclass(frozen=True, kw_only=True)
class Drift:
    """What is told of new images: the verdict in ``words``, and ``rows`` of a signal in words, its
    value, its limit, and whether that is exceeded."""

    words: str
    rows: list[tuple[str, str, str, bool]]


@dataclass(frozen=True, kw_only=True)
class Content:
    """What the page tells. ``facts`` and ``params`` are names with values; ``figures`` SVG by file
    name; ``drift`` what is told of new images, if there are any; ``calibration`` what is known of
    the probability of hits, and ``reliability`` its figure; ``confusions`` and ``rejected`` tables
    as their makers return them; ``k`` the cut-off of gallery and confusions."""

    facts: dict[str, str]
    measured: Measured
    figures: dict[str, bytes]
    calibration: Calibration | Uncalibrated
    reliability: bytes | None
    drift: Drift | None
    gallery: list[Example]
    confusions: pl.DataFrame
    rejected: pl.DataFrame
    params: dict[str, Any]
    k: int


def render(content: Content) -> str:
    """The whole page of a run."""
    return filled(
        _source("page.html"),
        content=content,
        table=comparison.table(content.measured),
        verdict=comparison.verdict(content.measured),
        learnt=_learnt(content.calibration),
        methods=METHODS,
        definitions=DEFINITIONS,
    )


def filled(template: str, **values: Any) -> str:
    """A template, which may include PARTS, with these values. Every text is escaped; only figures
    are taken as they are."""
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        loader=jinja2.DictLoader({name: _source(name) for name in PARTS}),
    )
    environment.filters |= {"inline": inline, "number": "{:,}".format, "score": "{:.3f}".format}
    return environment.from_string(template).render(**values)


def _source(name: str) -> str:
    return resources.files("irgen.report").joinpath(name).read_text(encoding="utf-8")


def _learnt(known: Calibration | Uncalibrated) -> str:
    if isinstance(known, Calibration):
        return calibration.words(known)
    return f"Here hits have no probability: {known.reason}."


def inline(svg: bytes) -> Markup:
    """An SVG file as an element of the page: as wide as its place, in the page's own ink."""
    text = svg[svg.index(b"<svg") :].decode()
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    head, body = text.split(">", 1)
    head = re.sub(r'\s(width|height|version|xmlns(:\w+)?)="[^"]*"', "", head)
    body = body.replace(figures.INK, "currentColor").replace(figures.GRID, "var(--line)")
    return Markup(f'{head} role="img">{body}')
