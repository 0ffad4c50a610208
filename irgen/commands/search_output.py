"""Format the hits of a search as a table, as JSON or as CSV."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from irgen.commands.format import format_percent
from irgen.commands.search_queries import Queries
from irgen.evaluation.table_format import render_text

if TYPE_CHECKING:
    from irgen.index.hits import Explanation, ImageHits
    from irgen.index.index import Index
    from irgen.index.text_query import TextQuery

NUMBERS = (
    *("id", "score", "cosine", "log_probability", "probability", "same_label"),
    "by_embedding",
)
COLUMNS = ("query", "rank", *NUMBERS)
EXPLANATION = ("code", "log_probabilities", "normalised_log_probs", "images_with_code", "trained")
NO_MATCH = "no match"
Record = dict[str, Any]


@dataclass(frozen=True)
class Reading:
    """Reading of a query in words: words that no image's texts have, so they were left out; words
    in place of which another form was read; and whether full-text search answered."""

    unknown_words: list[str]
    read_as: dict[str, str]
    is_full_text: bool

    @classmethod
    def of(cls, text: TextQuery) -> Reading:
        """Return how the index read a query."""
        return cls(list(text.unknown), dict(text.forms), text.is_full_text)

    def as_json(self) -> Record:
        """Return the reading as the service gives it."""
        return {
            "unknown_words": self.unknown_words,
            "read_as": self.read_as,
            "full_text": self.is_full_text,
        }


@dataclass(frozen=True)
class Answer:
    """Hits of all queries, in order. ``hits``: those of each query as JSON values: ``rank``,
    NUMBERS (see ``ImageHits``), ``metadata`` and, if ``is_explained``, ``explanation``.
    ``columns``: names of the metadata. ``untaught``: of each query, the probability that it has
    none of the taught labels; None where labels do not rank. ``readings``: of each query, None if
    it is not in words. ``has_text_encoder``: of the index."""

    queries: Queries
    hits: list[list[Record]]
    columns: Sequence[str]
    untaught: Sequence[float | None]
    readings: Sequence[Reading | None]
    has_text_encoder: bool = False
    is_explained: bool = False

    @classmethod
    def of(cls, queries: Queries, result: ImageHits, index: Index) -> Answer:
        """Return the answer with the metadata of the hits in ``index``."""
        from irgen.index.metadata import ID, as_plain

        view = index.view
        rows = result.table().rows(named=True)
        metadata = view.take(view.find_existing([row[ID] for row in rows])).drop(ID)
        hits: list[list[Record]] = [[] for _ in queries.names]
        for row, columns in zip(rows, metadata.rows(named=True), strict=True):
            hits[row.pop("query")].append(row | {"metadata": as_plain(columns)})
        readings: list[Reading | None] = [None] * len(queries.names)
        if result.texts:
            readings = [Reading.of(text) for text in result.texts]
        has_text_encoder = bool(result.texts) and index.text_method == "text encoder"
        untaught = result.list_untaught()
        return cls(queries, hits, metadata.columns, untaught, readings, has_text_encoder)

    def explained(self, by_query: list[list[Explanation]]) -> Answer:
        """Return the answer with explanations of the hits of each query."""
        from irgen.index.metadata import as_plain

        hits = [
            [
                hit | {"explanation": as_plain(asdict(explanation))}
                for hit, explanation in zip(of_query, explanations, strict=True)
            ]
            for of_query, explanations in zip(self.hits, by_query, strict=True)
        ]
        for hit in (hit for of_query in hits for hit in of_query):
            hit["explanation"].pop("id")  # that of the hit
        return replace(self, hits=hits, is_explained=True)

    def rows(self) -> list[tuple[str, Record]]:
        """Return query and hit of all hits."""
        by_query = zip(self.queries.names, self.hits, strict=True)
        return [(query, hit) for query, hits in by_query for hit in hits]


def as_text(answer: Answer) -> str:
    """Return a table with one row per hit; below it the queries of no taught label, and the
    explanations, if there are any."""
    tables = [_hit_table(answer)]
    if notes := _note_untaught(answer):
        tables.append(notes)
    if answer.is_explained and answer.rows():
        tables.append(_explanation_table(answer))
    return "\n\n".join(tables) + "\n"


def _note_untaught(answer: Answer) -> str:
    """Return a sentence for each query that more likely than not has none of the taught labels."""
    return "\n".join(
        f"{query}: none of the taught labels ({format_percent(share)} likely): sorted by its "
        "nearest images"
        for query, share in zip(answer.queries.names, answer.untaught, strict=True)
        if share is not None and share > 0.5
    )


def _hit_table(answer: Answer) -> str:
    hits = [hit for _, hit in answer.rows()]
    calibrated = any(hit["same_label"] is not None for hit in hits)
    with_retriever = answer.queries.kind != "id"
    shown: list[str] = [name for name in ("label", "path") if name in answer.columns]
    if "label" in shown and all(hit["metadata"]["label"] is None for hit in hits):
        shown.remove("label")
    if "path" in shown and all(hit["metadata"]["path"] == hit["id"] for hit in hits):
        shown.remove("path")
    columns = ["query", "rank", "id", "score"]
    columns += ["same label"] * calibrated + ["found by"] * with_retriever + shown
    rows = []
    by_query = zip(answer.queries.names, answer.hits, answer.readings, strict=True)
    for query, of_query, reading in by_query:
        if not of_query:
            rows.append([query, "", NO_MATCH, *[""] * (len(columns) - 3)])
        for hit in of_query:
            row = [query, str(hit["rank"]), hit["id"], f"{hit['score']:.3f}"]
            row += [format_percent(hit["same_label"])] * calibrated
            row += [_name_way(hit, reading)] * with_retriever
            rows.append([*row, *(_cell(hit["metadata"][name]) for name in shown)])
    return render_text(columns, rows, right=("rank", "score", "same label"))


def _name_way(hit: Record, reading: Reading | None) -> str:
    """Return what a hit was found by."""
    if reading is not None and reading.is_full_text:
        return "texts"
    if hit["by_embedding"]:
        return "embedding"
    return "texts" if hit["log_probability"] is None else "retriever"


def _cell(value: Any) -> str:
    return "–" if value is None else str(value)


def _explanation_table(answer: Answer) -> str:
    """Return the probability of each hit's code, level by level, among codes that images have."""
    columns = ["query", "rank", "id", "code", "level by level", "whole"]
    columns += ["with this code", "trained"]
    rows = [
        [query, str(hit["rank"]), hit["id"], *_format_explanation(hit["explanation"])]
        for query, hit in answer.rows()
    ]
    return render_text(columns, rows, right=("rank", "whole", "with this code"))


def _format_explanation(explanation: Record) -> list[str]:
    log_probs = explanation["normalised_log_probs"]
    return [
        "-".join(map(str, explanation["code"])),
        " ".join(format_percent(math.exp(log_prob)).rjust(4) for log_prob in log_probs),
        format_percent(math.exp(sum(log_probs))),
        f"{explanation['images_with_code']:,}",
        "yes" if explanation["trained"] else "no",
    ]


def describe_readings(answer: Answer) -> list[str]:
    """Return sentences about how queries in words were read: words that were left out or read as
    others, and queries that full-text search answered."""
    queries = answer.queries
    texts = queries.names if queries.kind == "text" else [queries.text] * len(queries.names)
    by_text = zip(texts, answer.readings, strict=True)
    read = {text: reading for text, reading in by_text if reading is not None}
    lines = [
        f"no image's texts have {' or '.join(f'“{word}”' for word in reading.unknown_words)}: left "
        f"out of “{text}”"
        for text, reading in read.items()
        if reading.unknown_words
    ]
    lines += [
        f"no image's texts have “{word}”: read as “{form}”"
        for reading in read.values()
        for word, form in reading.read_as.items()
    ]
    matched = [f"“{text}”" for text, reading in read.items() if reading.is_full_text]
    if matched and answer.has_text_encoder:
        lines.append(
            f"full-text search answered {', '.join(matched)}: the text encoder has not learned all "
            "of these words; a build from today's images teaches it"
        )
    elif matched:
        lines.append(
            "full-text search answered: it finds images that have these very words, since the "
            "index has no text encoder; docs/how-to/words.md says how to train one"
        )
    return lines


def as_json(answer: Answer) -> str:
    """Return a list with an object for each query: its name, the probability that it has none of
    the taught labels, and its hits; for one in words also how it was read."""
    columns = (answer.queries.names, answer.untaught, answer.hits, answer.readings)
    queries = []
    for name, untaught, hits, reading in zip(*columns, strict=True):
        query: Record = {"query": name, "untaught": untaught, "hits": hits}
        if reading is not None:
            query |= reading.as_json()
        queries.append(query)
    return json.dumps(queries, indent=2, allow_nan=False) + "\n"


def as_csv(answer: Answer) -> str:
    """Return one row per hit: scores, metadata, explanation. Lists and structs are JSON. A metadata
    column whose name is taken gets the prefix ``metadata.``."""
    from irgen.catalog.columns import column_name

    names = {name: column_name(name, (*COLUMNS, *EXPLANATION)) for name in answer.columns}
    explanation = EXPLANATION if answer.is_explained else ()
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*COLUMNS, *names.values(), *explanation])
    for query, hit in answer.rows():
        values = [query, *(hit[name] for name in COLUMNS[1:])]
        values += [hit["metadata"][name] for name in names]
        values += [hit["explanation"][name] for name in explanation]
        writer.writerow(map(_csv_cell, values))
    return file.getvalue()


def _csv_cell(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, (list, tuple, dict, bool)) else value


FORMATS: dict[str, Callable[[Answer], str]] = {"text": as_text, "json": as_json, "csv": as_csv}
