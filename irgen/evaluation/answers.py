"""What an index answers to the catalogue's queries, kept: an index says the same when it is asked
again, so the stage that asked it first spares the gate the question, and the networks."""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from irgen.catalog.table import read_table
from irgen.checkpoints import tensor_file
from irgen.evaluation import runs
from irgen.files import atomic, checksums, digest
from irgen.params import Compute
from irgen.workspace import Workspace

if TYPE_CHECKING:
    from irgen.index.index import Index

# Files in the folder of an index or a release that are no part of its content:
BESIDE = ("lock", "changes.sqlite-shm", "release.json")
KEPT = 12  # the answers of as many indexes
MOST_QUERIES = 2000  # a share of them is then known to about a hundredth

Ids = list[list[str | None]]


def ask_ahead(
    index: "Index", workspace: Workspace, cutoffs: Iterable[int], settings: Compute
) -> None:
    """Asks ``data/index``, which ``index`` is opened from, what the gate will, while its networks
    are at hand."""
    queries, database = asked_about(workspace)
    folder, k = workspace.existing("index"), max(cutoffs)
    ask(folder, queries, database, k, settings, workspace, index)


def asked_about(workspace: Workspace) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The catalogue's queries, at most MOST_QUERIES of them, and its database."""
    queries, database = (
        read_table(workspace.existing("catalog", f"{role}.parquet"))
        for role in ("queries", "database")
    )
    return queries[_evenly(len(queries), MOST_QUERIES)], database


def ask(
    folder: Path,
    queries: pl.DataFrame,
    database: pl.DataFrame,
    k: int,
    settings: Compute,
    workspace: Workspace,
    index: "Index | None" = None,
) -> Ids:
    """The answers of the index at ``folder``, so many that k are left without a query itself."""
    depth = runs.search_depth(k, queries["sha256"], [*database["sha256"], ""])
    return answers(folder, queries["sha256"].to_list(), depth, settings, workspace, index)


def answers(
    folder: Path,
    sha256s: list[str],
    depth: int,
    settings: Compute,
    workspace: Workspace,
    index: "Index | None" = None,
) -> Ids:
    """Ids of the first ``depth`` images that the index at ``folder`` finds for each of the queries
    (Q), by its own models and settings; None where there are fewer. ``index``: it, if it is open.

    They are kept by the content of the index, every file of which is read, the queries and this
    package's code. An index that was not asked before is checked. Raises IndexingError if it is
    damaged, or none.
    """
    files = {
        name: each["sha256"]
        for name, each in checksums(folder).items()
        if Path(name).name not in BESIDE
    }
    machine = (settings.device, settings.precision, settings.batch_size)
    key = digest(tensor_file.source_digest(), files, sha256s, depth, machine)[:16]
    path = workspace.cache / "answers" / f"{key}.parquet"
    if path.exists():
        return pl.read_parquet(path)["ids"].to_list()
    found = _ask(folder, sha256s, depth, settings, workspace, index)
    with atomic(path) as temporary:
        pl.DataFrame({"ids": found}, schema={"ids": pl.List(pl.String)}).write_parquet(temporary)
    _forget(path.parent)
    return found


def _ask(
    folder: Path,
    sha256s: list[str],
    depth: int,
    settings: Compute,
    workspace: Workspace,
    opened: "Index | None",
) -> Ids:
    from irgen.encoding.encode import open_encoding
    from irgen.encoding.query_features import (
        encode_queries,  # and the networks' libraries with these three
    )
    from irgen.index.index import Index

    encoding = open_encoding(settings, workspace)
    device, precision = str(encoding.machine.device), encoding.machine.decoder
    asked: AbstractContextManager[Index] = (
        Index.open(folder, device=device, precision=precision)
        if opened is None
        else nullcontext(opened)
    )
    with asked as index:
        index.verify()
        read = encode_queries(index.models, sha256s, encoding)
        return [list(row) for row in index.search(read, depth).ids]


def _forget(folder: Path) -> None:
    """Drops the oldest answers, but for those of KEPT indexes."""
    oldest = sorted(folder.glob("*.parquet"), key=lambda path: path.stat().st_mtime_ns)
    for path in oldest[:-KEPT]:
        path.unlink(missing_ok=True)


def _evenly(count: int, most: int) -> np.ndarray:
    """At most ``most`` of ``count`` rows, at equal distances.

    >>> _evenly(5, 3).tolist()
    [0, 2, 4]
    """
    return np.linspace(0, count - 1, min(count, most)).astype(np.int64)
