"""What was found, as text, JSON and CSV."""

import csv
import datetime
import io
import json
from dataclasses import replace

import polars as pl
import pytest

from irgen.commands import search_output
from irgen.commands.search_output import Answer, Reading
from irgen.commands.search_queries import Queries
from irgen.index.hits import Explanation
from irgen.index.metadata import as_plain

NUMBERS = pl.DataFrame(
    {
        "query": [0, 0, 2],
        "rank": [1, 2, 1],
        "id": ["猫.png", "two\nlines", "c"],
        "score": [0.91, 0.5, -3.25],
        "cosine": [0.91, 0.5, 0.25],
        "log_probability": [-0.5, None, -3.25],
        "probability": [0.6, None, 0.04],
        "same_label": [0.999, 0.5, None],
        "by_embedding": [False, True, False],
    }
)
ABOUT = pl.DataFrame(
    {
        "label": ["cat", None, "dog"],
        "path": ["a/猫.png", "b", "c"],
        "score": [7, 8, None],
        "images_with_code": ["red", "green", "blue"],
        "tags": [["x", "y"], [], None],
        "taken": [datetime.date(2024, 2, 29), None, None],
        "ratio": [float("nan"), 0.5, float("inf")],
        "good": [True, False, None],
        "raw": [b"\x00\xff", None, b""],
    }
)


def make_answer(names, numbers, metadata, *, kind="image", readings=None, encoder=False):
    """Return the answer of these tables."""
    queries = Queries(tuple(names), kind)
    hits = [[] for _ in names]
    for hit, columns in zip(numbers.rows(named=True), metadata.rows(named=True), strict=True):
        hits[hit.pop("query")].append(hit | {"metadata": as_plain(columns)})
    nothing = [None] * len(names)
    return Answer(queries, hits, metadata.columns, nothing, readings or nothing, encoder)


ANSWER = make_answer(["q one", "none", "q two"], NUMBERS, ABOUT)
EXPLAINED = ANSWER.explained(
    [
        [
            Explanation("猫.png", (3, 1), (-0.4, -0.1), (-0.3, 0.0), 1200, 0.91, True),
            Explanation("two\nlines", (3, 2), (-0.4, -9.0), (-0.3, -8.0), 1, 0.5, False),
        ],
        [],
        [Explanation("c", (0, 0), (-3.0, -0.25), (-2.0, -0.2), 2, 0.25, True)],
    ]
)


def test_a_person_sees_a_row_a_hit_and_one_for_a_query_without():
    assert search_output.as_text(ANSWER).splitlines() == [
        "query      rank  id            score    same label  found by    label    path",
        "-------  ------  ----------  -------  ------------  ----------  -------  --------",
        "q one         1  猫.png        0.910          >99%  retriever   cat      a/猫.png",
        "q one         2  two\\nlines    0.500           50%  embedding   –        b",
        "none             no match",
        "q two         1  c            -3.250             –  retriever   dog      c",
    ]


def test_columns_that_would_say_nothing_are_left_out():
    bare = make_answer(
        ["q"],
        NUMBERS[:1].with_columns(same_label=pl.lit(None, pl.Float32), id=pl.lit("a")),
        pl.DataFrame({"path": ["a"]}),
        kind="id",
    )
    assert search_output.as_text(bare).splitlines()[0].split() == ["query", "rank", "id", "score"]


def test_what_full_text_search_found_is_found_by_texts_and_why_is_told():
    readings = [
        Reading(["xyzzy", "plugh"], {}, True),
        Reading([], {"bs": "b"}, False),
        Reading([], {}, True),
    ]
    answers = [
        make_answer(
            ["a xyzzy", "b", "c"], NUMBERS, ABOUT, kind="text", readings=readings, encoder=e
        )
        for e in (False, True)
    ]
    table = search_output.as_text(answers[0])
    assert table.count("  texts") == 3 and "retriever" not in table
    left_out = "no image's texts have “xyzzy” or “plugh”: left out of “a xyzzy”"
    first, second = map(search_output.describe_readings, answers)
    assert first[0] == second[0] == left_out and len(first) == len(second) == 3
    assert first[1] == "no image's texts have “bs”: read as “b”"
    assert "the index has no text encoder" in first[2]
    assert "answered “a xyzzy”, “c”: the text encoder has not learned" in second[2]
    queries = json.loads(search_output.as_json(answers[0]))
    assert queries[0]["unknown_words"] == ["xyzzy", "plugh"]
    assert queries[1]["read_as"] == {"bs": "b"}
    assert [query["full_text"] for query in queries] == [True, False, True]
    assert not search_output.describe_readings(ANSWER)


def test_explanations_stand_below():
    below = search_output.as_text(EXPLAINED).split("\n\n")[1].splitlines()
    assert below[0].split("  ")[0] == "query"
    assert [line.split()[-1] for line in below[2:]] == ["yes", "no", "yes"]
    assert "3-1" in below[2] and "74%" in below[2] and "1,200" in below[2]
    assert "<1%" in below[3]


def test_a_query_of_no_taught_label_is_named_below():
    likely = replace(ANSWER, untaught=[0.81, None, 0.3])
    assert search_output.as_text(likely).split("\n\n")[1].splitlines() == [
        "q one: none of the taught labels (81% likely): sorted by its nearest images"
    ]
    assert [query["untaught"] for query in json.loads(search_output.as_json(likely))] == [
        *(0.81, None, 0.3)
    ]


def test_json_holds_every_value_as_json_can():
    first, second, third = json.loads(search_output.as_json(ANSWER))
    assert (first["query"], second["query"], third["query"]) == ("q one", "none", "q two")
    assert second["hits"] == []
    hit = first["hits"][0]
    assert (hit["id"], hit["rank"], hit["by_embedding"], hit["score"]) == ("猫.png", 1, False, 0.91)
    assert first["hits"][1]["log_probability"] is None and "explanation" not in hit
    assert hit["metadata"] == {
        "label": "cat",
        "path": "a/猫.png",
        "score": 7,
        "images_with_code": "red",
        "tags": ["x", "y"],
        "taken": "2024-02-29",
        "ratio": None,
        "good": True,
        "raw": "00ff",
    }
    explained = json.loads(search_output.as_json(EXPLAINED))
    assert explained[0]["hits"][0]["explanation"]["code"] == [3, 1]


@pytest.mark.parametrize("answer", [ANSWER, EXPLAINED], ids=["plain", "explained"])
def test_csv_has_a_row_a_hit_and_no_two_columns_of_one_name(answer):
    header, *rows = csv.reader(io.StringIO(search_output.as_csv(answer)))
    assert len(set(header)) == len(header) and {len(row) for row in rows} == {len(header)}
    assert header[:9] == list(search_output.COLUMNS)
    first, second, third = (dict(zip(header, row, strict=True)) for row in rows)
    assert (first["query"], first["score"], first["metadata.score"]) == ("q one", "0.91", "7")
    assert (first["metadata.images_with_code"], json.loads(first["tags"])) == ("red", ["x", "y"])
    assert (second["id"], second["log_probability"], second["by_embedding"]) == (
        "two\nlines",
        "",
        "true",
    )
    assert third["same_label"] == "" and third["good"] == ""
    if answer.is_explained:
        assert (json.loads(first["code"]), first["images_with_code"]) == ([3, 1], "1200")


def test_every_number_of_an_explanation_has_a_column():
    fields = set(Explanation.__dataclass_fields__) - set(search_output.COLUMNS)
    assert set(search_output.EXPLANATION) == fields
