"""Ask a running service for ``irgen search``: it has the models in memory.

Nothing here imports torch or polars, which would take longer than the answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from irgen.client import TRIES, Client, Hit, Hits
from irgen.commands.search_output import NUMBERS, Answer, Reading
from irgen.commands.search_queries import Queries
from irgen.errors import ImageError


def ask(
    url: str, queries: Queries, k: int, options: Mapping[str, Any], tries: int = TRIES
) -> Answer:
    """Search by a service. Raise ServiceError with its reason, ImageError for a file that cannot be
    read."""
    with Client(url, tries=tries) as client:
        if queries.kind in ("text", "composed"):
            results = _search_texts(client, queries, k, options)
        elif queries.kind == "id":
            results = client.search_ids(queries.names, k, **options)
        else:
            results = client.search(_read_files(queries.names), k, **options)
        info = client.info()
    columns = list(info["columns"])
    return Answer(
        queries,
        [_make_records(hits, columns) for hits in results],
        columns,
        [hits.untaught for hits in results],
        [_make_reading(hits) for hits in results],
        info.get("text_method") == "text encoder",
    )


def _search_texts(
    client: Client, queries: Queries, k: int, options: Mapping[str, Any]
) -> list[Hits]:
    if queries.kind == "text":
        return client.search_texts(queries.names, k, **options)
    texts = [queries.text] * len(queries.names)
    return client.search_composed(_read_files(queries.names), texts, k, **options)


def _make_reading(hits: Hits) -> Reading | None:
    """Return how a query was read, None if it is not in words."""
    if hits.text is None:
        return None
    return Reading(hits.text.unknown_words, hits.text.read_as, hits.text.full_text)


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
