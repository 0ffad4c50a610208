"""Build and search the indexes of faiss that generative search is compared with: brute force, HNSW
and IVF-PQ."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import torch

from irgen.files.atomic import atomic
from irgen.files.records import read_json, write_json
from speed.stopwatch import time_once

Vectors = npt.NDArray[np.float32]  # (n, D)

LINKS = 32  # HNSW's M
PARTS = 32  # sub-quantisers of 8 bits each
POINTS = 39  # training vectors an inverted list, the least that faiss does not warn of


@dataclass(frozen=True)
class FaissIndex:
    """Hold a built index. ``seconds``: to train and fill it. ``bytes_per_image``: of the index as a
    file, with the vectors if it needs them. ``effort``: name of the setting that trades time for
    quality; ``set_effort`` sets it."""

    name: str
    index: Any
    seconds: float
    bytes_per_image: float
    effort: str
    set_effort: Callable[[int], None]

    def search(self, queries: Vectors, k: int) -> npt.NDArray[np.int64]:
        """Return the k nearest rows by inner product: (Q, D) → (Q, k), −1 where there are fewer."""
        return self.index.search(queries, k)[1]


def use_torch_threads() -> None:
    """Give faiss as many threads as torch has."""
    faiss.omp_set_num_threads(torch.get_num_threads())


def build_flat(vectors: Vectors) -> FaissIndex:
    """Build the index for brute-force search."""
    index = faiss.IndexFlatIP(vectors.shape[1])
    seconds, _ = time_once(lambda: index.add(vectors))
    return FaissIndex(
        "brute-force search (faiss)", index, seconds, vectors.shape[1] * 4, "", _set_no_effort
    )


def build_hnsw(vectors: Vectors, folder: Path | None) -> FaissIndex:
    """Build HNSW over uncompressed vectors, or load it from ``folder``, where the first build
    stores it with its seconds."""

    def build() -> Any:
        index = faiss.IndexHNSWFlat(vectors.shape[1], LINKS, faiss.METRIC_INNER_PRODUCT)
        index.add(vectors)
        return index

    def set_effort(value: int) -> None:
        index.hnsw.efSearch = value

    index, seconds, size = _load_or_build(build, folder)
    return FaissIndex("HNSW", index, seconds, size / len(vectors), "efSearch", set_effort)


@dataclass(frozen=True)
class Rivals:
    """Hold the indexes that searches are raced with: brute force and a graph."""

    flat: FaissIndex
    hnsw: FaissIndex

    @classmethod
    def build(cls, vectors: Vectors, folder: Path, effort: int) -> "Rivals":
        """Build both over vectors (N, D), the graph only if it is not below ``folder``; it searches
        with ``effort``."""
        graph = build_hnsw(vectors, folder / "hnsw")
        graph.set_effort(effort)
        return cls(build_flat(vectors), graph)


def build_ivfpq(vectors: Vectors, folder: Path | None) -> FaissIndex:
    """Build IVF-PQ, or load it from ``folder`` as ``build_hnsw`` does: about 4·√N inverted lists,
    vectors of 32 bytes each (or, if 32 does not divide D, the next smaller number that does)."""
    width, lists = vectors.shape[1], list_count(len(vectors))
    parts = next(n for n in range(PARTS, 0, -1) if width % n == 0)

    def build() -> Any:
        coarse = faiss.IndexFlatIP(width)
        inner_product = faiss.METRIC_INNER_PRODUCT
        index = faiss.IndexIVFPQ(coarse, width, lists, parts, 8, inner_product)
        index.pq.cp.min_points_per_centroid = 1  # no warning for a small database
        rows = np.random.default_rng(0).permutation(len(vectors))[: max(POINTS * lists, 10_000)]
        index.train(vectors[np.sort(rows)])
        index.add(vectors)
        index.own_fields, _ = True, coarse.this.disown()  # the coarse index lives as long as it
        return index

    def set_effort(value: int) -> None:
        faiss.extract_index_ivf(index).nprobe = value

    index, seconds, size = _load_or_build(build, folder)
    name = f"IVF-PQ ({lists} lists, {parts}×8)"
    return FaissIndex(name, index, seconds, size / len(vectors), "nprobe", set_effort)


def list_count(rows: int) -> int:
    """Return the power of two next to 4·√N, with enough rows to train each list.

    >>> list_count(1_000_000), list_count(2_000)
    (4096, 32)
    """
    wanted = 2 ** round(np.log2(4 * np.sqrt(rows)))
    return max(1, min(wanted, 2 ** int(np.log2(max(1, rows // POINTS)))))


def add_reranking(compressed: FaissIndex, vectors: Vectors, candidates: int) -> FaissIndex:
    """Return the index with its first ``candidates`` re-ranked by the uncompressed vectors."""
    index = faiss.IndexRefineFlat(compressed.index, faiss.swig_ptr(vectors))
    index.k_factor = candidates / 10  # for searches with k = 10
    size = compressed.bytes_per_image + vectors.shape[1] * 4
    name = f"{compressed.name}, re-ranked"
    return replace(compressed, name=name, index=index, bytes_per_image=size)


def _load_or_build(build: Callable[[], Any], folder: Path | None) -> tuple[Any, float, int]:
    """Return the index, the seconds of its build, and its bytes as a file. A ``folder`` stores it
    for the next call."""
    if folder is None:
        seconds, index = time_once(build)
        return index, seconds, len(faiss.serialize_index(index))
    if not folder.exists():
        seconds, index = time_once(build)
        with atomic(folder) as temporary:
            temporary.mkdir()
            faiss.write_index(index, str(temporary / "index.faiss"))
            write_json(temporary / "seconds.json", seconds)
    file = folder / "index.faiss"
    return faiss.read_index(str(file)), read_json(folder / "seconds.json"), file.stat().st_size


def _set_no_effort(value: int) -> None:
    """Do nothing: brute-force search has no such setting."""


def recall(rows: npt.NDArray[np.int64], exact_rows: npt.NDArray[np.int64]) -> float:
    """Return the share of ``exact_rows`` (Q, k), the k nearest, that are in ``rows`` (Q, k).

    >>> recall(np.array([[1, 2]]), np.array([[2, 3]]))
    0.5
    """
    pairs = zip(exact_rows, rows, strict=True)
    return float(np.mean([np.isin(nearest, results).mean() for nearest, results in pairs]))
