"""What a search found, as people and as machines read it."""

import csv
import io
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from irgen.commands.wording import aligned, percent
from irgen.index.hits import Explanation, ImageHits
from irgen.index.metadata import ID
from irgen.index.view import View

COLUMNS = (
    *("query", "rank", "id", "score", "cosine", "log_probability", "probability", "same_label"),
    "dense",
)
NO_MATCH = "no match"


@dataclass(frozen=True)
class Answer:
    """Queries by the names they were given, and all hits in order: ``numbers`` as of
    ``ImageHits.table``, and row by row with it their ``metadata``; perhaps ``explanations``, too.
    ``stored``: the queries are images of the index, so that the retriever did not write."""

    queries: Sequence[str]
    numbers: pl.DataFrame
    metadata: pl.DataFrame
    stored: bool
    explanations: list[Explanation] | None = None

    @classmethod
    def of(cls, queries: Sequence[str], found: ImageHits, view: View, *, stored: bool) -> "Answer":
        """What was found in ``view``."""
        numbers = found.table()
        rows = view.find_existing(numbers[ID].to_list()) if len(numbers) else np.empty(0, np.int64)
        return cls(queries, numbers, view.take(rows).drop(ID), stored)

    def explained(self, each: list[list[Explanation]]) -> "Answer":
        """With explanations of the hits of each query."""
        return replace(self, explanations=[one for query in each for one in query])

    def hits(self) -> list[list[dict[str, Any]]]:
        """The hits of each query, as plain values."""
        found: list[list[dict[str, Any]]] = [[] for _ in self.queries]
        rows = zip(self.numbers.rows(named=True), self.metadata.rows(named=True), strict=True)
        for place, (hit, about) in enumerate(rows):
            of_query = found[hit.pop("query")]
            hit["metadata"] = about
            if self.explanations is not None:
                hit["explanation"] = asdict(self.explanations[place])
                hit["explanation"].pop(ID)
            of_query.append(hit)
        return found


def text(answer: Answer) -> str:
    """A table that a person reads, one row a hit; below it the explanations, if there are any."""
    tables = [_hits(answer)]
    if answer.explanations:
        tables.append(_explanations(answer, answer.explanations))
    return "\n\n".join(tables) + "\n"


def _hits(answer: Answer) -> str:
    numbers, about = answer.numbers, answer.metadata
    sure = numbers["same_label"].null_count() < len(numbers)
    written = not answer.stored
    own: list[str] = [name for name in ("label", "path") if name in about.columns]
    if "path" in own and (about["path"] == numbers[ID]).all():
        own.remove("path")
    columns = ["query", "rank", "id", "score"]
    columns += ["same label"] * sure + ["found"] * written + own
    rows = []
    for query, hits in zip(answer.queries, answer.hits(), strict=True):
        if not hits:
            rows.append([query, "", NO_MATCH, *[""] * (len(columns) - 3)])
        for hit in hits:
            row = [query, str(hit["rank"]), hit["id"], f"{hit['score']:.3f}"]
            row += [percent(hit["same_label"])] * sure
            row += ["by embedding" if hit["dense"] else "written"] * written
            rows.append([*row, *(_cell(hit["metadata"][name]) for name in own)])
    return aligned(columns, rows, right=("rank", "score", "same label"))


def _cell(value: Any) -> str:
    return "–" if value is None else str(value)


def _explanations(answer: Answer, explanations: list[Explanation]) -> str:
    """How likely the retriever finds each code, among those that lead to an image."""
    columns = ["query", "rank", "id", "code", "level by level", "whole"]
    columns += ["with this code", "trained"]
    rows = [
        [
            answer.queries[query],
            str(rank),
            each.id,
            "-".join(map(str, each.code)),
            " ".join(percent(math.exp(share)).rjust(4) for share in each.shares),
            percent(math.exp(sum(each.shares))),
            f"{each.bucket:,}",
            "yes" if each.trained else "no",
        ]
        for (query, rank), each in zip(
            answer.numbers.select("query", "rank").rows(), explanations, strict=True
        )
    ]
    return aligned(columns, rows, right=("rank", "whole", "with this code"))


def as_json(answer: Answer) -> str:
    """A list with an object for each query: its name, and its hits."""
    found = [
        {"query": query, "hits": hits}
        for query, hits in zip(answer.queries, answer.hits(), strict=True)
    ]
    return json.dumps(as_plain(found), indent=2, allow_nan=False) + "\n"


def as_csv(answer: Answer) -> str:
    """One row a hit: the numbers, then the metadata, then the explanation; nothing for a query
    without a match. Lists are JSON, and metadata named like another column has a prefix."""
    inner = [name for name in Explanation.__dataclass_fields__ if name not in COLUMNS]
    taken = {*COLUMNS, *inner}
    names = {n: f"metadata_{n}" if n in taken else n for n in answer.metadata.columns}
    inner = inner if answer.explanations is not None else []
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*COLUMNS, *names.values(), *inner])
    for query, hits in zip(answer.queries, answer.hits(), strict=True):
        for hit in hits:
            values = [query, *(hit[name] for name in COLUMNS[1:])]
            values += [hit["metadata"][name] for name in names]
            values += [hit["explanation"][name] for name in inner]
            writer.writerow([_csv_cell(as_plain(value)) for value in values])
    return file.getvalue()


def _csv_cell(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, (list, bool)) else value


def as_plain(value: Any) -> Any:
    """``value`` as JSON can hold it: bytes as hex, dates and times as ISO text, what is not finite
    as None.

    >>> as_plain({"a": (1, float("nan")), "b": b"\\x00"})
    {'a': [1, None], 'b': '00'}
    """
    if isinstance(value, dict):
        return {name: as_plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, bytes):
        return value.hex()
    return value if isinstance(value, (str, int, float, type(None))) else str(value)


FORMS: dict[str, Callable[[Answer], str]] = {"text": text, "json": as_json, "csv": as_csv}
