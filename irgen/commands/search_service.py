"""Ask a running service for ``irgen search``: it has the models in memory.

Nothing here imports torch or polars, which would take longer than the answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from irgen.client import TRIES, Client, Hit, TextHits
from irgen.commands.search_output import NUMBERS, Answer, Reading
from irgen.commands.search_queries import Queries
from irgen.errors import ImageError


def ask(
    url: str, queries: Queries, k: int, options: Mapping[str, Any], tries: int = TRIES
) -> Answer:
    """Search by a service. Raise ServiceError with its reason, ImageError for a file that cannot be
    read."""
    readings: list[Reading | None] = [None] * len(queries.names)
    with Client(url, tries=tries) as client:
        if queries.kind in ("text", "composed"):
            results = _search_texts(client, queries, k, options)
            by_query = [result.hits for result in results]
            readings = [Reading(result.unknown_words, result.full_text) for result in results]
        elif queries.kind == "id":
            by_query = client.search_ids(queries.names, k, **options)
        else:
            by_query = client.search(_read_files(queries.names), k, **options)
        info = client.info()
    columns = list(info["columns"])
    records = [_make_records(hits, columns) for hits in by_query]
    has_text_encoder = info["text_method"] == "text encoder"
    return Answer(queries, records, columns, readings, has_text_encoder)


def _search_texts(
    client: Client, queries: Queries, k: int, options: Mapping[str, Any]
) -> list[TextHits]:
    if queries.kind == "text":
        return client.search_texts(queries.names, k, **options)
    texts = [queries.text] * len(queries.names)
    return client.search_composed(_read_files(queries.names), texts, k, **options)


def _read_files(paths: Sequence[str]) -> list[bytes]:
    try:
        return [Path(path).read_bytes() for path in paths]
    except OSError as error:
        raise ImageError(f"{error.filename}: {error.strerror}") from None


def _make_records(hits: Sequence[Hit], columns: Sequence[str]) -> list[dict[str, Any]]:
    """Return the hits of a query as ``Answer`` holds them; ``columns``: of the metadata."""
    return [
        {"rank": rank}
        | {name: getattr(hit, name) for name in NUMBERS}
        | {"metadata": {name: hit.metadata.get(name) for name in columns}}
        for rank, hit in enumerate(hits, start=1)
    ]
