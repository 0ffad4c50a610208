"""Format the hits of a search as a table, as JSON or as CSV."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from irgen.catalog.columns import column_name
from irgen.commands.format import format_percent
from irgen.evaluation.table_format import render_text
from irgen.index.metadata import ID, as_plain

if TYPE_CHECKING:
    from irgen.index.hits import Explanation, ImageHits
    from irgen.index.view import View

COLUMNS = (
    *("query", "rank", "id", "score", "cosine", "log_probability", "probability", "same_label"),
    "by_embedding",
)
NO_MATCH = "no match"


@dataclass(frozen=True)
class Answer:
    """Hits of all queries, in order. ``queries``: names of the queries. ``hits``: a table with one
    row per hit (``ImageHits.table``). ``metadata`` and optional ``explanations`` are row-aligned
    with it. ``stored``: the queries are images of the index, so the retriever was not used."""

    queries: Sequence[str]
    hits: pl.DataFrame
    metadata: pl.DataFrame
    stored: bool
    explanations: list[Explanation] | None = None

    @classmethod
    def of(cls, queries: Sequence[str], result: ImageHits, view: View, *, stored: bool) -> Answer:
        """Return the answer with the metadata of the hits in ``view``."""
        hits = result.table()
        rows = view.find_existing(hits[ID].to_list()) if len(hits) else np.empty(0, np.int64)
        return cls(queries, hits, view.take(rows).drop(ID), stored)

    def explained(self, by_query: list[list[Explanation]]) -> Answer:
        """Return the answer with explanations of the hits of each query."""
        return replace(self, explanations=[hit for hits in by_query for hit in hits])

    def records(self) -> list[list[dict[str, Any]]]:
        """Return the hits of each query as plain values."""
        by_query: list[list[dict[str, Any]]] = [[] for _ in self.queries]
        rows = zip(self.hits.rows(named=True), self.metadata.rows(named=True), strict=True)
        for number, (hit, metadata) in enumerate(rows):
            records = by_query[hit.pop("query")]
            hit["metadata"] = metadata
            if self.explanations is not None:
                hit["explanation"] = asdict(self.explanations[number])
                hit["explanation"].pop(ID)
            records.append(hit)
        return by_query


def as_text(answer: Answer) -> str:
    """Return a table with one row per hit; below it the explanations, if there are any."""
    tables = [_hit_table(answer)]
    if answer.explanations:
        tables.append(_explanation_table(answer, answer.explanations))
    return "\n\n".join(tables) + "\n"


def _hit_table(answer: Answer) -> str:
    calibrated = answer.hits["same_label"].null_count() < len(answer.hits)
    with_retriever = not answer.stored
    shown: list[str] = [name for name in ("label", "path") if name in answer.metadata.columns]
    if "label" in shown and answer.metadata["label"].null_count() == len(answer.metadata):
        shown.remove("label")
    if "path" in shown and (answer.metadata["path"] == answer.hits[ID]).all():
        shown.remove("path")
    columns = ["query", "rank", "id", "score"]
    columns += ["same label"] * calibrated + ["found by"] * with_retriever + shown
    rows = []
    for query, hits in zip(answer.queries, answer.records(), strict=True):
        if not hits:
            rows.append([query, "", NO_MATCH, *[""] * (len(columns) - 3)])
        for hit in hits:
            row = [query, str(hit["rank"]), hit["id"], f"{hit['score']:.3f}"]
            row += [format_percent(hit["same_label"])] * calibrated
            row += ["embedding" if hit["by_embedding"] else "retriever"] * with_retriever
            rows.append([*row, *(_cell(hit["metadata"][name]) for name in shown)])
    return render_text(columns, rows, right=("rank", "score", "same label"))


def _cell(value: Any) -> str:
    return "–" if value is None else str(value)


def _explanation_table(answer: Answer, explanations: list[Explanation]) -> str:
    """Return the probability of each hit's code, level by level, among codes that images have."""
    columns = ["query", "rank", "id", "code", "level by level", "whole"]
    columns += ["with this code", "trained"]
    rows = [
        [
            answer.queries[query],
            str(rank),
            explanation.id,
            "-".join(map(str, explanation.code)),
            " ".join(
                format_percent(math.exp(log_prob)).rjust(4)
                for log_prob in explanation.normalised_log_probs
            ),
            format_percent(math.exp(sum(explanation.normalised_log_probs))),
            f"{explanation.images_with_code:,}",
            "yes" if explanation.trained else "no",
        ]
        for (query, rank), explanation in zip(
            answer.hits.select("query", "rank").rows(), explanations, strict=True
        )
    ]
    return render_text(columns, rows, right=("rank", "whole", "with this code"))


def as_json(answer: Answer) -> str:
    """Return a list with an object for each query: its name and its hits."""
    queries = [
        {"query": query, "hits": hits}
        for query, hits in zip(answer.queries, answer.records(), strict=True)
    ]
    return json.dumps(as_plain(queries), indent=2, allow_nan=False) + "\n"


def as_csv(answer: Answer) -> str:
    """Return one row per hit: scores, metadata, explanation. Lists and structs are JSON. A metadata
    column whose name is taken gets the prefix ``metadata.``."""
    from irgen.index.hits import Explanation  # torch: seconds that other formats need not wait

    inner = [name for name in Explanation.__dataclass_fields__ if name not in COLUMNS]
    taken = {*COLUMNS, *inner}
    names = {name: column_name(name, taken) for name in answer.metadata.columns}
    inner = inner if answer.explanations is not None else []
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*COLUMNS, *names.values(), *inner])
    for query, hits in zip(answer.queries, answer.records(), strict=True):
        for hit in hits:
            values = [query, *(hit[name] for name in COLUMNS[1:])]
            values += [hit["metadata"][name] for name in names]
            values += [hit["explanation"][name] for name in inner]
            writer.writerow([_csv_cell(as_plain(value)) for value in values])
    return file.getvalue()


def _csv_cell(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, (list, dict, bool)) else value


FORMATS: dict[str, Callable[[Answer], str]] = {"text": as_text, "json": as_json, "csv": as_csv}
