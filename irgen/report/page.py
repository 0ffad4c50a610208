"""Render the report as one self-contained HTML page: no requests, no scripts, images inside."""

import re
from dataclasses import dataclass
from importlib import resources
from typing import Any

import jinja2
import polars as pl
from markupsafe import Markup

from irgen.evaluation import calibration, ranking
from irgen.report import comparison, figures
from irgen.report.comparison import METHODS, Measured
from irgen.report.gallery import Example
from irgen.search.calibration import Calibration, Uncalibrated
from irgen.search.ranking import Ranking

PARTS = ("page.css", "gallery.html", "definitions.html")  # included in pages

DEFINITIONS = {
    "P@k": "Precision: relevant images among the first k, divided by k.",
    "precision_capped@k": "The same, divided by min(k, R): 1 is the best possible value.",
    "precision_irgen@k": (
        "The rule of the paper's code. If all R ≥ 2 relevant images are among the first k, it "
        "divides by the rank of the last one, else by k. Use it only to compare with its tables."
    ),
    "hit@k": "Share of queries with at least one relevant image among the first k.",
    "recall@k": "Relevant images among the first k, divided by R.",
    "mAP@R": "Mean over queries of the average precision over the first R ranks, divided by R.",
    "agreement@k": "Without labels: share of the k nearest by pretrained features that is found.",
    "finds itself": "Share of the index's images that are the first hit of their own search.",
    "finds copies": "Share of near copies of queries that are among the first 10 results.",
    "invalid": "Search without the trie: share of the predicted codes that no image has.",
    "ms search": "Milliseconds a query, in batches: from the encoded query to the results.",
    "ms with encoding": "The same, from the decoded image to the results.",
    "bytes/image": "Memory that the method holds for each database image.",
}


OF_LABELS = ("P@k", "precision_capped@k", "precision_irgen@k", "hit@k", "recall@k", "mAP@R")


@dataclass(frozen=True, kw_only=True)
class Drift:
    """Drift section: the verdict in ``words``, and one row a signal: description, value, limit, and
    whether it is exceeded."""

    words: str
    rows: list[tuple[str, str, str, bool]]


@dataclass(frozen=True)
class Link:
    """A text that leads to another page."""

    text: str
    url: str


@dataclass(frozen=True, kw_only=True)
class Content:
    """Content of the page.

    ``facts``, at the top, ``settings`` and ``params``: names with values. ``warnings``: sentences.
    ``labelled``: some query has a label; else neighbours take the place of hits and misses.
    ``figures``: SVG by name. ``calibration``: the probability of hits, ``reliability`` its figure.
    ``drift``: None without new images. ``k``: the cut-off of gallery and confusions.
    """

    facts: dict[str, str | Link]
    settings: dict[str, str]
    warnings: list[str]
    labelled: bool
    measured: Measured
    figures: dict[str, bytes]
    calibration: Calibration | Ranking | Uncalibrated
    reliability: bytes | None
    drift: Drift | None
    gallery: list[Example]
    confusions: pl.DataFrame
    rejected: pl.DataFrame
    params: dict[str, Any]
    k: int


def render(content: Content) -> str:
    """Return the HTML of the page."""
    return fill_template(
        _source("page.html"),
        content=content,
        table=comparison.build_table(content.measured),
        verdict=comparison.summarise(content.measured),
        calibration=_explain_probabilities(content.calibration),
        own=METHODS["index"],
        definitions={
            name: meaning
            for name, meaning in DEFINITIONS.items()
            if (name != "agreement@k" if content.labelled else name not in OF_LABELS)
        },
    )


def _explain_probabilities(fitted: Calibration | Ranking | Uncalibrated) -> str:
    """Describe in sentences where the probabilities of hits come from."""
    if isinstance(fitted, Ranking):
        return ranking.explain(fitted)
    if isinstance(fitted, Calibration):
        return calibration.explain(fitted)
    return f"Hits have no probability here: {fitted.reason}."


def render_sheet(
    title: str, facts: dict[str, str], notes: list[str], examples: list[Example]
) -> str:
    """Return the HTML of a sheet of queries with their hits; ``notes`` stand above them."""
    return fill_template(
        _source("sheet.html"), title=title, facts=facts, notes=notes, examples=examples
    )


def fill_template(template: str, **values: Any) -> str:
    """Fill a template, which may include PARTS. Every text is escaped, except figures."""
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        loader=jinja2.DictLoader({name: _source(name) for name in PARTS}),
    )
    environment.filters |= {"inline": inline, "number": "{:,}".format, "score": "{:.3f}".format}
    return environment.from_string(template).render(**values)


def _source(name: str) -> str:
    return resources.files("irgen.report").joinpath(name).read_text(encoding="utf-8")


def inline(svg: bytes) -> Markup:
    """Turn an SVG file into an element of the page, as wide as its container, in its colours."""
    text = svg[svg.index(b"<svg") :].decode()
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    head, body = text.split(">", 1)
    head = re.sub(r'\s(width|height|version|xmlns(:\w+)?)="[^"]*"', "", head)
    body = body.replace(figures.INK, "currentColor").replace(figures.GRID, "var(--line)")
    return Markup(f'{head} role="img">{body}')
