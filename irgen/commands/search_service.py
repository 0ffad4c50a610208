"""Ask a running service for ``irgen search``: it has the models in memory.

Nothing here imports torch or polars, which would take longer than the answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from irgen.client import TRIES, Client, Hit
from irgen.commands.search_output import NUMBERS, Answer
from irgen.errors import ImageError


def ask(
    url: str,
    queries: Sequence[str],
    k: int,
    options: Mapping[str, Any],
    *,
    stored: bool,
    tries: int = TRIES,
) -> Answer:
    """Search by a service. Raise ServiceError with its reason, ImageError for a file that cannot be
    read."""
    with Client(url, tries=tries) as client:
        if stored:
            results = client.search_ids(queries, k, **options)
        else:
            results = client.search(_read_files(queries), k, **options)
        columns = list(client.info()["columns"])
    records = [_make_records(hits, columns) for hits in results]
    return Answer(queries, records, columns, stored, [hits.untaught for hits in results])


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
