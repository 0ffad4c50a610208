"""Queries of a batch, answered together: images are encoded once, and equal options search once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from irgen.index.hits import ImageHits
from irgen.index.index import Index
from irgen.index.metadata import ID
from irgen.index.text_query import TextQuery
from irgen.search.engine import Options
from irgen.serve.batching import Timing, answer_in_groups
from irgen.serve.champion import Served

Method = Literal["served", "retriever", "brute_force"]
Kind = Literal["image", "id", "text", "composed"]
STEP = 4  # of sizes of batches


@dataclass(frozen=True, kw_only=True)
class QueryInput:
    """One query as a client gives it: an image file, the id of an image of the index, or a text; or
    a file together with a text."""

    image: bytes | None = None
    id: str | None = None
    text: str | None = None

    @property
    def kind(self) -> Kind:
        """Return what the query is made of."""
        if self.id is not None:
            return "id"
        if self.text is None:
            return "image"
        return "text" if self.image is None else "composed"


@dataclass(frozen=True, kw_only=True)
class Query:
    """One query of ``index``, of what its ``kind`` says: ``pixels`` (C, H, W) uint8 as its encoder
    expects them, the ``id`` of an image in it, a ``text`` as it was read."""

    index: Index
    kind: Kind
    pixels: np.ndarray | None
    id: str | None
    text: TextQuery | None
    method: Method
    k: int
    options: Options

    @property
    def key(self) -> str:
        """Return a text that is equal for queries that are searched together."""
        return f"{id(self.index)} {self.kind} {self.method} {self.k} {self.options}"


@dataclass(frozen=True)
class Hit:
    """One image found. Numbers that do not apply are None: see ``irgen.index.hits.ImageHits``."""

    id: str
    score: float
    cosine: float | None
    log_probability: float | None
    same_label: float | None
    probability: float | None
    by_embedding: bool
    code: tuple[int, ...]
    metadata: dict[str, Any]


@dataclass(frozen=True)
class QueryHits:
    """Hits of one query, best first. ``untaught``: see ``ImageHits``; None where it is −inf.
    ``text``: how the query was read if it is in words."""

    hits: list[Hit]
    untaught: float | None
    text: TextQuery | None


@dataclass(frozen=True)
class SearchResults:
    """Results of each query, the index that answered, and seconds of decoding and of the
    batches."""

    served: Served
    queries: list[QueryHits]
    decode_seconds: float
    timings: list[Timing]

    @property
    def hits(self) -> list[list[Hit]]:
        """Return the hits of each query."""
        return [query.hits for query in self.queries]


def answer(queries: Sequence[Query]) -> list[QueryHits | Exception]:
    """Return the hits of each query, best first, or the error that concerns it."""
    return answer_in_groups(queries, lambda query: query.key, _search)


def _search(group: Sequence[Query]) -> list[QueryHits | Exception]:
    first, count = group[0], len(group)
    padded = [*group, *[group[-1]] * (round_up(count) - count)]
    return list(_describe(first.index, _search_kind(padded).first(count)))


def _search_kind(group: Sequence[Query]) -> ImageHits:
    """Search for queries of one kind and with equal options."""
    index, k, options = group[0].index, group[0].k, group[0].options
    texts = [query.text for query in group if query.text is not None]
    match group[0].kind:
        case "id":
            return index.search_ids([query.id or "" for query in group], k, options)
        case "text":
            return index.search_text(texts, k, options)
        case "composed":
            return index.search_composed(_stack(group), texts, k, options)
    search = index.search_brute_force if group[0].method == "brute_force" else index.search
    return search(_stack(group), k, options)


def _stack(group: Sequence[Query]) -> np.ndarray:
    """Return the pixels (Q, C, H, W) of queries."""
    return np.stack([query.pixels for query in group if query.pixels is not None])


def round_up(count: int) -> int:
    """Return the number of queries that ``count`` of them are filled up to: a multiple of STEP.

    oneDNN keeps code and buffers for every size of a batch: 8 MB of memory, and half as long again
    for the first one.

    >>> [round_up(count) for count in (1, 3, 4, 5, 32)]
    [1, 3, 4, 8, 32]
    """
    return count if count <= STEP else -(-count // STEP) * STEP


def _describe(index: Index, hits: ImageHits) -> list[QueryHits]:
    """Return the hits of each query with their metadata and codes; an image that was removed while
    the search ran is left out."""
    view = index.view
    table = hits.table()
    rows = view.find(table[ID].to_list())
    table = table.filter(rows >= 0)
    rows = rows[rows >= 0]
    metadata = view.take(rows).drop(ID).rows(named=True)
    codes = view.snapshot.gather(torch.from_numpy(rows), "codes").tolist()
    answers: list[list[Hit]] = [[] for _ in range(len(hits))]
    for hit, columns, code in zip(table.rows(named=True), metadata, codes, strict=True):
        answers[hit["query"]].append(
            Hit(
                id=hit[ID],
                score=hit["score"],
                cosine=hit["cosine"],
                log_probability=hit["log_probability"],
                same_label=hit["same_label"],
                probability=hit["probability"],
                by_embedding=hit["by_embedding"],
                code=tuple(code),
                metadata=columns,
            )
        )
    texts = hits.texts or [None] * len(hits)
    return list(map(QueryHits, answers, hits.list_untaught(), texts))
