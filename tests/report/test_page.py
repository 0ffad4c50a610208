"""The page: complete, self-contained, escaped."""

import re
from html.parser import HTMLParser

import polars as pl
import pytest

from irgen.report import figures, page
from irgen.report.comparison import Measured
from irgen.report.gallery import Example, Row, Tile
from irgen.search.calibration import Bin, Calibration, Uncalibrated

EVIL = '<script>alert("x")</script>'
DOT = "data:image/png;base64,AAAA"
FIGURE = figures.lines(figures.Plot(title="t", x="x"), [figures.Line(name="a", x=[1, 2], y=[1, 2])])
RUN = pl.DataFrame(
    {"query_label": [EVIL], "result_label": ["b"], "misses": [3], "queries": [2], "cost": [0.1]}
)


def content(**changes):
    miss = Tile(image=DOT, title=EVIL, notes=("-1.500",), caption=EVIL, mark="miss")
    hit = Tile(image=DOT, title="b", notes=("-1.000",), caption="code 1-3", mark="hit")
    row = Row(heading="the served index: 1 of 10 relevant", tiles=[hit, miss], empty=8)
    quality = {"precision/10": 0.5, "hit/10": 1.0, "map/R": 0.5, "bytes_per_image": 4.0}
    given = {
        "facts": {"Source": EVIL, "MLflow": page.Link("run 7", "#run")},
        "settings": {"Encoder": EVIL},
        "warnings": [EVIL],
        "labelled": True,
        "measured": Measured(
            quality={"brute_force_tuned": quality, "generative": quality},
            latency={},
            queries={"count": 1234, "without_positive": 2},
        ),
        "figures": {"a": FIGURE},
        "calibration": Uncalibrated(reason=EVIL),
        "reliability": None,
        "drift": page.Drift(words=EVIL, rows=[(EVIL, "1.00×", "1.50×", True)]),
        "gallery": [
            Example(query=Tile(image=DOT, title=EVIL), group="Drawn at random", rows=[row])
        ],
        "confusions": RUN,
        "rejected": pl.DataFrame({"key": [EVIL], "reason": ["empty"]}),
        "params": {"seed": EVIL},
        "k": 10,
    }
    return page.Content(**{**given, **changes})


class Checker(HTMLParser):
    """Collect the addresses in a page, and check that its tags close in order."""

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
    assert "the served index: 1 of 10 relevant" in html
    assert html.index("Drawn at random") < html.index("confusions") < html.index("<h2>Methods")


def test_pictures_are_enlarged_without_a_script_and_a_missing_one_is_told():
    html = page.render(content())
    assert html.count('<details class="frame" name="picture">') == 3
    row = Row(heading="found", tiles=[Tile(image=None, title="cats/1.png")])
    example = Example(query=Tile(image=DOT, title="q"), group="", rows=[row])
    sheet = page.render_sheet("q", {"Index": "data/index"}, ["1 picture is missing"], [example] * 2)
    assert sheet.count("no picture") == 2 and "cats/1.png" in sheet
    assert (
        'href="#query-2"' in sheet and 'id="query-2"' in sheet and "1 picture is missing" in sheet
    )
    checker = Checker()
    checker.feed(sheet)
    assert checker.open == []
    assert all(address.startswith(("data:", "#")) for address in checker.addresses)


def test_without_labels_the_page_speaks_of_neighbours_and_of_no_hits():
    bare = {"agreement/10": 0.5, "bytes_per_image": 4.0}
    measured = Measured(quality={"index": bare}, latency={}, queries={"count": 5})
    html = page.render(content(labelled=False, measured=measured, figures={}))
    for absent in ("no data", "onfusion", "Same label", "hit@10", "Curves", "Probability of a hit"):
        assert absent not in html
    assert "≈ and a blue frame" in html and "50.0% are also among" in html


def test_warnings_stand_above_everything_but_the_verdict():
    html = page.render(content(warnings=["Retrieval is near chance."]))
    assert html.index("Retrieval is near chance.") < html.index("Source") < html.index("<h2>")


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
    svg = page.inline(FIGURE)
    head = svg.split(">")[0]
    assert head.startswith("<svg") and "viewBox" in head and "width=" not in head
    assert figures.INK not in svg and "currentColor" in svg
