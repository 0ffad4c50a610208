"""Search with faiss, which one would use instead: by brute force, a graph, and inverted lists of
compressed vectors."""

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
from speed.stopwatch import once

Vectors = npt.NDArray[np.float32]  # (n, D)

LINKS = 32  # HNSW's M
PARTS = 32  # sub-quantisers of 8 bits each
POINTS = 39  # training vectors an inverted list, the least that faiss does not warn of


@dataclass(frozen=True)
class Neighbours:
    """A built index. ``seconds`` it took to train and fill; ``bytes_per_image`` of it written to a
    file, vectors included where it needs them; ``effort`` names the setting that trades time for
    quality, and ``set_effort`` sets it."""

    name: str
    index: Any
    seconds: float
    bytes_per_image: float
    effort: str
    set_effort: Callable[[int], None]

    def search(self, queries: Vectors, k: int) -> npt.NDArray[np.int64]:
        """Return the k nearest rows by inner product: (Q, D) → (Q, k), −1 where there are fewer."""
        return self.index.search(queries, k)[1]


def use_torchs_threads() -> int:
    """As many threads for faiss as torch has; their number."""
    faiss.omp_set_num_threads(torch.get_num_threads())
    return torch.get_num_threads()


def exact(vectors: Vectors) -> Neighbours:
    """Every vector against every query."""
    index = faiss.IndexFlatIP(vectors.shape[1])
    seconds, _ = once(lambda: index.add(vectors))
    return Neighbours(
        "brute-force search (faiss)", index, seconds, vectors.shape[1] * 4, "", _nothing
    )


def graph(vectors: Vectors, kept: Path | None) -> Neighbours:
    """HNSW over the vectors themselves; built once and kept at ``kept`` with the time it took."""

    def build() -> Any:
        index = faiss.IndexHNSWFlat(vectors.shape[1], LINKS, faiss.METRIC_INNER_PRODUCT)
        index.add(vectors)
        return index

    def set_effort(value: int) -> None:
        index.hnsw.efSearch = value

    index, seconds, size = _kept(build, kept)
    return Neighbours("HNSW", index, seconds, size / len(vectors), "efSearch", set_effort)


def compressed(vectors: Vectors, kept: Path | None) -> Neighbours:
    """IVF-PQ: about 4·√N inverted lists, vectors in 32 bytes each (or, where D is not a multiple of
    32, the next smaller number that divides it)."""
    width, lists = vectors.shape[1], list_count(len(vectors))
    parts = next(n for n in range(PARTS, 0, -1) if width % n == 0)

    def build() -> Any:
        coarse = faiss.IndexFlatIP(width)
        inner_product = faiss.METRIC_INNER_PRODUCT
        index = faiss.IndexIVFPQ(coarse, width, lists, parts, 8, inner_product)
        index.pq.cp.min_points_per_centroid = 1  # a small database is warned of in vain
        taken = np.random.default_rng(0).permutation(len(vectors))[: max(POINTS * lists, 10_000)]
        index.train(vectors[np.sort(taken)])
        index.add(vectors)
        index.own_fields, _ = True, coarse.this.disown()  # the coarse index lives as long as it
        return index

    def set_effort(value: int) -> None:
        faiss.extract_index_ivf(index).nprobe = value

    index, seconds, size = _kept(build, kept)
    name = f"IVF-PQ ({lists} lists, {parts}×8)"
    return Neighbours(name, index, seconds, size / len(vectors), "nprobe", set_effort)


def list_count(rows: int) -> int:
    """Return the power of two next to 4·√N, with enough rows to train each list.

    >>> list_count(1_000_000), list_count(2_000)
    (4096, 32)
    """
    wanted = 2 ** round(np.log2(4 * np.sqrt(rows)))
    return max(1, min(wanted, 2 ** int(np.log2(max(1, rows // POINTS)))))


def reranked(rival: Neighbours, vectors: Vectors, candidates: int) -> Neighbours:
    """The same, its first ``candidates`` ordered again by the vectors themselves."""
    index = faiss.IndexRefineFlat(rival.index, faiss.swig_ptr(vectors))
    index.k_factor = candidates / 10  # of the ten that are asked for
    size = rival.bytes_per_image + vectors.shape[1] * 4
    return replace(rival, name=f"{rival.name}, re-ranked", index=index, bytes_per_image=size)


def _kept(build: Callable[[], Any], kept: Path | None) -> tuple[Any, float, int]:
    """The index, the seconds its building took when it was built, and its size as a file."""
    if kept is None or not kept.exists():
        seconds, index = once(build)
        size = len(faiss.serialize_index(index)) if kept is None else 0
        if kept is None:
            return index, seconds, size
        with atomic(kept) as temporary:
            temporary.mkdir()
            faiss.write_index(index, str(temporary / "index.faiss"))
            write_json(temporary / "seconds.json", seconds)
    file = kept / "index.faiss"
    return faiss.read_index(str(file)), read_json(kept / "seconds.json"), file.stat().st_size


def _nothing(value: int) -> None:
    """Brute force has nothing to set."""


def recall(found: npt.NDArray[np.int64], exact_rows: npt.NDArray[np.int64]) -> float:
    """Return the share of the exact k nearest that were found: (Q, k), (Q, k) → a number in [0, 1].

    >>> recall(np.array([[1, 2]]), np.array([[2, 3]]))
    0.5
    """
    pairs = zip(found, exact_rows, strict=True)
    return float(np.mean([np.isin(right, one).mean() for one, right in pairs]))
