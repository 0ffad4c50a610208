"""Held-out queries of a project, and which hits of an index have their labels."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from irgen.catalog.images.pixels import decode_images
from irgen.catalog.shards import Images
from irgen.catalog.table import read_table
from irgen.files.workspace import Workspace
from irgen.index.index import Index
from irgen.search.engine import QueryFeatures

K = 10  # hits that are judged
BATCH = 32


@dataclass(frozen=True)
class Queries:
    """A batch of held-out queries: ``ids`` and ``labels``, and their ``features``."""

    ids: list[str]
    labels: list[str]
    features: QueryFeatures


@torch.inference_mode()
def read_queries(index: Index, root: Path) -> Iterator[Queries]:
    """Yield the held-out queries of the project ``root``, encoded by the index's models."""
    workspace = Workspace.at(root)
    table = read_table(workspace.existing("catalog", "queries.parquet"))
    files = Images(workspace.existing("download"))
    for start in range(0, len(table), BATCH):
        rows = table[start : start + BATCH]
        contents = [files.read(sha256) for sha256 in rows["sha256"]]
        pixels = torch.from_numpy(decode_images(contents, index.models.decoding))
        ids, labels = rows["id"].to_list(), rows["label"].to_list()
        yield Queries(ids, labels, index.models.encode(pixels))


def judge(index: Index, queries: Queries, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first K hits (Q, K) of ``rows`` (Q, K + 1) that are not the query itself, −1 for
    none, and which of them have its label, bool."""
    hits = torch.full((len(rows), K), -1, dtype=torch.int64)
    relevant = torch.zeros(len(rows), K, dtype=torch.bool)
    table = index.view.table
    for number, (query, label) in enumerate(zip(queries.ids, queries.labels, strict=True)):
        filled = rows[number][rows[number] >= 0]
        items = table[filled.numpy()]
        others = torch.from_numpy((items["id"] != query).to_numpy())
        names = torch.from_numpy((items["label"] == label).fill_null(False).to_numpy())
        count = min(K, int(others.sum()))
        hits[number, :count] = filled[others][:K]
        relevant[number, :count] = names[others][:K]
    return hits, relevant
