"""The page: complete, self-contained, escaped."""

import re
from html.parser import HTMLParser

import polars as pl
import pytest

from irgen.report import figures, page
from irgen.report.comparison import Measured
from irgen.report.gallery import Example, Tile
from irgen.search.calibration import Bin, Calibration, Uncalibrated

EVIL = '<script>alert("x")</script>'
DOT = "data:image/png;base64,AAAA"
RUN = pl.DataFrame(
    {"query_label": [EVIL], "result_label": ["b"], "misses": [3], "queries": [2], "cost": [0.1]}
)


def content(**changes):
    miss = Tile(image=DOT, label=EVIL, score=-1.5, code="1-2", relevant=False)
    hit = Tile(image=DOT, label="b", score=-1.0, code="1-3", relevant=True)
    quality = {"precision/10": 0.5, "hit/10": 1.0, "map/R": 0.5, "bytes_per_image": 4.0}
    given = {
        "facts": {"Source": EVIL},
        "measured": Measured(
            quality={"brute_force_tuned": quality, "generative": quality},
            latency={},
            queries={"count": 1234, "without_positive": 2},
        ),
        "figures": {"a": figures.lines(figures.Plot(title="t", x="x"), [])},
        "calibration": Uncalibrated(reason=EVIL),
        "reliability": None,
        "drift": page.Drift(words=EVIL, rows=[(EVIL, "1.00×", "1.50×", True)]),
        "gallery": [
            Example(image=DOT, label=EVIL, reason="r", results={"generative": [hit, miss]})
        ],
        "confusions": RUN,
        "rejected": pl.DataFrame({"key": [EVIL], "reason": ["empty"]}),
        "params": {"seed": EVIL},
        "k": 10,
    }
    return page.Content(**{**given, **changes})


class Checker(HTMLParser):
    """Collects the addresses a page names, and checks that its tags close in order."""

    VOID = ("meta", "img", "br", "link", "path", "use", "rect")

    def __init__(self):
        super().__init__()
        self.open, self.addresses = [], []

    def handle_starttag(self, tag, attrs):
        self.addresses += [value for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.addresses += [value for name, value in attrs if name in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_the_page_is_well_formed_and_asks_for_nothing_outside_itself():
    html = page.render(content())
    checker = Checker()
    checker.feed(html)
    assert checker.open == []
    assert checker.addresses
    assert all(address.startswith(("data:", "#")) for address in checker.addresses)
    assert not re.search(r"https?://|@import|url\((?!#)", html)


def test_every_text_is_escaped():
    html = page.render(content())
    assert "<script" not in html
    assert html.count("&lt;script&gt;") >= 5


def test_hits_and_misses_are_told_apart_without_colour_and_empty_places_are_shown():
    html = page.render(content())
    assert html.count(">✓<") == 1 and html.count(">✗<") == 1
    assert html.count("no result") == 8
    assert "generative search: 1 of 10 relevant" in html


def test_queries_without_a_positive_are_told():
    html = page.render(content())
    assert "Of 1,234 queries, 2 have no relevant image in the database and are left out" in html


@pytest.mark.parametrize("emptied", ["gallery", "confusions", "rejected"])
def test_an_empty_part_does_not_break_the_page(emptied):
    empty = {"gallery": [], "confusions": RUN.clear(), "rejected": pl.DataFrame({"key": []})}
    assert page.render(content(**{emptied: empty[emptied]})).endswith("</html>")


KNOWN = Calibration(
    cosines=(0.2, 0.6),
    probabilities=(0.1, 0.9),
    queries=30,
    pairs=12_345,
    error=0.0123,
    reliability=(Bin(predicted=0.3, observed=0.25, pairs=12_345),),
)


def test_the_probability_of_hits_is_explained_and_drawn():
    drawn = figures.reliability(KNOWN.reliability)
    html = page.render(content(calibration=KNOWN, reliability=drawn))
    assert "12,345 hits of 30 validation images" in html
    assert "average error is 1.2 points" in html
    assert "From a cosine of 0.40 on, a hit is more likely right than wrong." in html
    assert "95% are right" not in html
    assert html.count("<svg") == 2


def test_without_a_calibration_the_reason_is_told():
    few = Uncalibrated(reason="3 validation queries are too few")
    html = page.render(content(calibration=few))
    assert "Hits have no probability here: 3 validation queries are too few." in html
    assert html.count("<svg") == 1


def test_figures_take_the_pages_ink_and_width():
    svg = page.inline(figures.lines(figures.Plot(title="t", x="x"), []))
    head = svg.split(">")[0]
    assert head.startswith("<svg") and "viewBox" in head and "width=" not in head
    assert figures.INK not in svg and "currentColor" in svg
