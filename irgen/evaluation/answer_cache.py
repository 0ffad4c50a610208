"""Answers of an index to the catalogue's queries, kept on disk.

An index gives the same answers when it is asked again. So the stage ``evaluate``, which has it
open, asks ahead what the gate will ask before a release.
"""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from irgen.evaluation.query_set import read_query_tables, search_depth
from irgen.files import atomic, checksums, digest
from irgen.params import Compute
from irgen.workspace import Workspace

if TYPE_CHECKING:
    from irgen.index.index import Index

VERSION = 1  # raise when decoding, encoding or search change what an index answers
# Files in the folder of an index that are no part of it:
BESIDE = ("lock", "changes.sqlite-shm", "release.json")
KEPT_INDEXES = 12  # answers of as many indexes are kept
MAX_QUERIES = 2000  # a share of so many is known to about a hundredth

Ids = list[list[str | None]]


def read_asked_tables(workspace: Workspace) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Read the catalogue's queries, evenly chosen if there are over MAX_QUERIES, and its
    database."""
    queries, database = read_query_tables(workspace)
    return queries[_choose_evenly(len(queries), MAX_QUERIES)], database


def ask_ahead(
    index: "Index", workspace: Workspace, cutoffs: Iterable[int], settings: Compute
) -> None:
    """Ask ``index``, opened from ``data/index``, what the gate will ask."""
    queries, database = read_asked_tables(workspace)
    folder, k = workspace.existing("index"), max(cutoffs)
    ask(folder, queries, database, k, settings, workspace, index)


def ask(
    folder: Path,
    queries: pl.DataFrame,
    database: pl.DataFrame,
    k: int,
    settings: Compute,
    workspace: Workspace,
    index: "Index | None" = None,
) -> Ids:
    """Return the ids that the index at ``folder`` finds for each query (Q), from the cache if it
    was asked before; None at the end of a shorter list.

    The lists are deep enough for k results without the query itself. The index searches by its own
    models and settings. The cache key is the content of all its files, the queries and VERSION. An
    index that was not asked before is verified. ``index``: the index at ``folder``, if it is open.
    Raises IndexingError if it is damaged, or none.
    """
    sha256s = queries["sha256"].to_list()
    depth = search_depth(k, sha256s, [*database["sha256"], ""])
    files = {
        name: each["sha256"]
        for name, each in checksums(folder).items()
        if Path(name).name not in BESIDE
    }
    machine = (settings.device, settings.precision, settings.batch_size)
    key = digest(VERSION, files, sha256s, depth, machine)[:16]
    path = workspace.cache / "answers" / f"{key}.parquet"
    if path.exists():
        return pl.read_parquet(path)["ids"].to_list()
    ids = _search(folder, sha256s, depth, settings, workspace, index)
    with atomic(path) as temporary:
        pl.DataFrame({"ids": ids}, schema={"ids": pl.List(pl.String)}).write_parquet(temporary)
    _delete_oldest(path.parent)
    return ids


def _search(
    folder: Path,
    sha256s: list[str],
    depth: int,
    settings: Compute,
    workspace: Workspace,
    opened: "Index | None",
) -> Ids:
    from irgen.encoding.encode import open_encoding  # these import torch
    from irgen.encoding.query_features import encode_queries
    from irgen.index.index import Index

    encoding = open_encoding(settings, workspace)
    device, precision = str(encoding.machine.device), encoding.machine.decoder
    context: AbstractContextManager[Index] = (
        Index.open(folder, device=device, precision=precision)
        if opened is None
        else nullcontext(opened)
    )
    with context as index:
        index.verify()
        features = encode_queries(index.models, sha256s, encoding)
        return [list(row) for row in index.search(features, depth).ids]


def _delete_oldest(folder: Path) -> None:
    oldest = sorted(folder.glob("*.parquet"), key=lambda path: path.stat().st_mtime_ns)
    for path in oldest[:-KEPT_INDEXES]:
        path.unlink(missing_ok=True)


def _choose_evenly(count: int, most: int) -> np.ndarray:
    """Return at most ``most`` of ``count`` row numbers, at equal distances.

    >>> _choose_evenly(5, 3).tolist()
    [0, 2, 4]
    """
    return np.linspace(0, count - 1, min(count, most)).astype(np.int64)
