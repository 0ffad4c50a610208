"""Ask a running service for ``irgen search``: it has the models in memory."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from irgen.client import TRIES, Client, Hit
from irgen.commands.search_output import Answer
from irgen.errors import ArtifactError, ImageError, IrgenError
from irgen.files.records import read_json
from irgen.files.workspace import Workspace
from irgen.releases import own_index

ADDRESS = "serve/address.json"  # in the project's cache; a service writes it while it runs


def find_service(root: Path, folder: Path | None) -> str | None:
    """Return the address of a service on this machine over the index that a search would open; None
    if there is none. ``folder``: of the index, if one was named."""
    with suppress(ArtifactError, IrgenError, OSError, KeyError, TypeError, ProcessLookupError):
        service = read_json(Workspace.at(root).cache / ADDRESS)
        os.kill(service["process"], 0)  # raises if it has ended
        wanted = folder or own_index.default_folder(root)
        if Path(service["folder"]) == wanted.resolve():
            return service["url"]
    return None


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
    return _make_answer(queries, results, columns, stored=stored)


def _read_files(paths: Sequence[str]) -> list[bytes]:
    try:
        return [Path(path).read_bytes() for path in paths]
    except OSError as error:
        raise ImageError(f"{error.filename}: {error.strerror}") from None


def _make_answer(
    queries: Sequence[str], results: list[list[Hit]], columns: Sequence[str], *, stored: bool
) -> Answer:
    import polars as pl

    rows = [
        asdict(hit) | {"query": number, "rank": rank}
        for number, hits in enumerate(results)
        for rank, hit in enumerate(hits, start=1)
    ]
    schema = {
        "query": pl.Int64,
        "rank": pl.Int64,
        "id": pl.String,
        "score": pl.Float64,
        "cosine": pl.Float64,
        "log_probability": pl.Float64,
        "probability": pl.Float64,
        "same_label": pl.Float64,
        "by_embedding": pl.Boolean,
    }
    hits = pl.DataFrame(rows, schema=schema)
    values = {name: [row["metadata"].get(name) for row in rows] for name in columns}
    metadata = pl.DataFrame(values, strict=False)
    return Answer(queries, hits, metadata, stored)
