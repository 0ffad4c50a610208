"""Keep an index's answers to the catalogue's queries on disk.

The stage ``evaluate``, which has the index open, fills the cache; the gate reads it before a
release.
"""

from collections.abc import Collection
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl

from irgen.errors import ArtifactError
from irgen.evaluation import runs
from irgen.evaluation.query_set import read_database, read_queries, search_depth
from irgen.files.atomic import delete_oldest
from irgen.files.digests import checksums, digest
from irgen.files.sealed import read_parquet, write_parquet
from irgen.files.workspace import Workspace
from irgen.params import Compute, Evaluate

if TYPE_CHECKING:
    from irgen.index.index import Index

VERSION = 8  # raise when decoding, encoding or search change what an index answers
# Files in the folder of an index that are no part of it:
NOT_INDEX = ("lock", "changes.sqlite-shm", "release.json")
KEPT_INDEXES = 12  # answers of as many indexes are kept
MAX_QUERIES = 2000  # enough to measure a share to about a hundredth

Ids = list[list[str | None]]


def read_gate_tables(workspace: Workspace, settings: Evaluate) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Read the measured queries, evenly chosen if there are over MAX_QUERIES, and the catalogue's
    database."""
    queries = read_queries(workspace, settings)
    return queries[_choose_evenly(len(queries), MAX_QUERIES)], read_database(workspace)


def read_nearest(workspace: Workspace, settings: Evaluate) -> npt.NDArray[np.int64]:
    """Return the database rows (Q, k) of the images nearest to each of the gate's queries, by
    brute-force search of pretrained features. The stage ``evaluate`` has found them."""
    queries = read_queries(workspace, settings)
    table = read_parquet(nearest_path(workspace))
    lists, _ = runs.from_table(table, len(queries), max(settings.cutoffs))
    return lists.ids[_choose_evenly(len(queries), MAX_QUERIES)]


def nearest_path(workspace: Workspace) -> Path:
    """Return the file of these nearest images."""
    return workspace.existing("evaluate", "runs", "brute_force_pretrained.parquet")


def cache_answers(
    index: "Index", workspace: Workspace, settings: Evaluate, compute: Compute
) -> None:
    """Store the answers of ``index``, opened from ``data/index``, to the gate's queries."""
    queries, database = read_gate_tables(workspace, settings)
    folder, k = workspace.existing("index"), max(settings.cutoffs)
    ask(folder, queries, database, k, compute, workspace, index)


def ask(
    folder: Path,
    queries: pl.DataFrame,
    database: pl.DataFrame,
    k: int,
    settings: Compute,
    workspace: Workspace,
    index: "Index | None" = None,
    allowed: Collection[str] | None = None,
) -> Ids:
    """Return the ids that the index at ``folder`` finds for each query (Q), from the cache if they
    are there. Shorter lists end in None.

    The lists are deep enough for k results without the query itself. The index searches by its own
    models and settings. The cache key is the content of all its files, the queries and VERSION.
    Before a search the index is verified. ``index``: the index at ``folder``, if it is open.
    ``allowed``: ids of the images to search among; by default all. Raises IndexingError if it is
    damaged or missing.
    """
    if allowed is not None and set(read_ids(folder)) <= set(allowed):
        allowed = None
    sha256s = queries["sha256"].to_list()
    depth = search_depth(k, sha256s, [*database["sha256"], ""])
    files = {
        name: file["sha256"]
        for name, file in checksums(folder).items()
        if Path(name).name not in NOT_INDEX
    }
    machine = (settings.device, settings.precision, settings.batch_size)
    filters = [] if allowed is None else [sorted(allowed)]
    key = digest(VERSION, files, sha256s, depth, machine, *filters)[:16]
    path = workspace.cache / "answers" / f"{key}.parquet"
    if path.exists():
        with suppress(ArtifactError):  # damaged: it is asked again
            return read_parquet(path)["ids"].to_list()
    ids = _search(folder, sha256s, depth, settings, workspace, index, allowed)
    write_parquet(path, pl.DataFrame({"ids": ids}, schema={"ids": pl.List(pl.String)}))
    delete_oldest(path.parent.glob("*.parquet"), KEPT_INDEXES)
    return ids


def _search(
    folder: Path,
    sha256s: list[str],
    depth: int,
    settings: Compute,
    workspace: Workspace,
    opened: "Index | None",
    allowed: Collection[str] | None,
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
        options = replace(index.options(depth), allow=allowed)
        return [list(row) for row in index.search(features, depth, options).ids]


def read_ids(folder: Path) -> list[str]:
    """Return the ids of all images in the index at ``folder``. Raises IndexingError if it is
    damaged or missing."""
    from irgen.index.index import Index  # imports torch

    with Index.open(folder) as index:
        return index.view.all_ids()


def _choose_evenly(count: int, most: int) -> np.ndarray:
    """Return at most ``most`` of ``count`` row numbers, at equal distances.

    >>> _choose_evenly(5, 3).tolist()
    [0, 2, 4]
    """
    return np.linspace(0, count - 1, min(count, most)).astype(np.int64)
