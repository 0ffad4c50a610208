"""Approximate nearest-neighbour search of unit vectors: the baselines of generative search.

Only this file imports faiss (extra ``compare``) and ScaNN (extra ``scann``). Every function takes
unit vectors ``database`` (N, D) and returns a :class:`Method` whose scores are cosines, exact or
approximate. Indexes are built on one thread, so that the same vectors give the same index (but see
``scann``). A search uses as many threads as torch.

A search returns at most the images that it visits with its usual effort (efSearch of a graph, the
probed lists, the re-ranked ones). So the deep lists that map@R needs cost no more than was timed.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from irgen.errors import CatalogError, ExtraError
from irgen.evaluation.methods import Encoder, Method
from irgen.params.baselines import Hnsw, IvfPq, Scann, Spann
from irgen.search.result import Result

Vectors = npt.NDArray[np.float32]  # (n, D)
RawResult = tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]  # ids and scores, both (Q, any)
Search = Callable[[Vectors, int], RawResult]

MIN_VECTORS = 16  # to train the sixteen codes of a four-bit codebook
VECTORS_PER_LIST = 39  # to train an inverted list; with fewer faiss warns


def import_faiss() -> Any:
    """Import faiss. Raises ExtraError, which names what to install, if it is missing."""
    try:
        import faiss
    except ImportError as error:
        raise ExtraError("faiss", "compare", error) from error
    return faiss


def import_scann() -> Any | None:
    """Import ScaNN, or return None: it has wheels for Linux only; on x86 they need AVX and FMA."""
    try:
        import scann
    except ImportError:
        return None
    return scann


def hnsw(encoder: Encoder, database: Tensor, settings: Hnsw) -> Method:
    """Return search of a navigable graph of the vectors (HNSW, arXiv 1603.09320)."""
    vectors = _vectors(database)
    with _one_thread() as faiss:
        index = faiss.index_factory(vectors.shape[1], f"HNSW{settings.links},Flat")
        index.hnsw.efConstruction, index.hnsw.efSearch = settings.build, settings.search
        index.add(vectors)

    def search(queries: Vectors, k: int) -> RawResult:
        return _to_cosines(index.search(queries, min(k, settings.search)))

    return _build_method(encoder, search, len(faiss.serialize_index(index)), len(vectors))


def ivf_pq(encoder: Encoder, database: Tensor, settings: IvfPq) -> Method:
    """Return search of inverted lists of product-quantised residuals (IVF-PQ, Jégou et al. 2011).
    A part takes a byte, or fewer bits if there are fewer than 256 vectors to train on."""
    vectors = _vectors(database)
    parts = largest_divisor(vectors.shape[1], settings.code_bytes)
    bits = min(8, int(np.log2(len(vectors))))
    with _one_thread() as faiss:
        lists = count_lists(settings.lists, len(vectors))
        index = faiss.index_factory(vectors.shape[1], f"IVF{lists},PQ{parts}x{bits}")
        index.cp.min_points_per_centroid = index.pq.cp.min_points_per_centroid = 1  # no warnings
        index.do_polysemous_training = False  # takes minutes, for an unused filter
        index.nprobe = settings.probes
        index.train(vectors)
        index.add(vectors)

    def search(queries: Vectors, k: int) -> RawResult:
        return _to_cosines(index.search(queries, k))

    return _build_method(encoder, search, len(faiss.serialize_index(index)), len(vectors))


def scann(encoder: Encoder, database: Tensor, settings: Scann) -> Method:
    """Return search by ScaNN itself (Guo et al. 2020, arXiv 1908.10396): partitions, four-bit codes
    trained by an anisotropic loss, the best candidates scored exactly.

    The last digit of a score depends on the memory address of the vectors, so near ties may swap
    between builds. Raises ExtraError if ScaNN is missing.
    """
    library = import_scann()
    if library is None:
        raise ExtraError("scann", "scann")
    vectors, lists = _vectors(database), count_lists(settings.lists, len(database))
    builder = library.scann_ops_pybind.builder(vectors, settings.reranked, "dot_product")
    builder.set_n_training_threads(1)
    if lists > 1:
        builder.tree(num_leaves=lists, num_leaves_to_search=min(settings.probes, lists))
    builder.score_ah(settings.part, anisotropic_quantization_threshold=settings.anisotropy).reorder(
        settings.reranked
    )
    searcher, threads = builder.build(), torch.get_num_threads()
    searcher.set_num_threads(threads)

    def search(queries: Vectors, k: int) -> RawResult:
        size = -(-len(queries) // threads)
        ids, scores = searcher.search_batched_parallel(
            queries, min(k, settings.reranked), batch_size=size
        )
        real = np.isfinite(scores)  # missing results are image 0 with nan
        return np.where(real, ids.astype(np.int64), -1), np.where(real, scores, -np.inf)

    with tempfile.TemporaryDirectory() as folder:
        searcher.serialize(folder)
        size = sum(path.stat().st_size for path in Path(folder).iterdir())
    return _build_method(encoder, search, size, len(vectors))


def scann_like(encoder: Encoder, database: Tensor, settings: Scann) -> Method:
    """Return search by faiss's nearest equivalent of ScaNN: inverted lists of four-bit codes that
    are scanned in registers, the best candidates scored exactly. It has no ``anisotropy``."""
    vectors = _vectors(database)
    width, lists = vectors.shape[1], count_lists(settings.lists, len(database))
    with _one_thread() as faiss:
        parts = largest_divisor(width, max(1, width // settings.part))
        index = faiss.index_factory(width, f"IVF{lists},PQ{parts}x4fs,RFlat")
        inner = faiss.downcast_index(faiss.extract_index_ivf(index))
        inner.cp.min_points_per_centroid = inner.pq.cp.min_points_per_centroid = 1
        inner.nprobe = settings.probes
        index.train(vectors)
        index.add(vectors)

    def search(queries: Vectors, k: int) -> RawResult:
        k = min(k, settings.reranked)
        index.k_factor = settings.reranked / k
        return _to_cosines(index.search(queries, k))

    return _build_method(encoder, search, len(faiss.serialize_index(index)), len(vectors))


def spann_like(encoder: Encoder, database: Tensor, settings: Spann) -> Method:
    """Return search by faiss's nearest equivalent of SPANN (Chen et al. 2021, arXiv 2111.08566).

    A graph finds the nearest of many centroids. An image near the border of several lists is in
    each of them (closure): in up to ``copies`` lists, at most 1 + ``closure`` times as far away as
    the nearest. The lists are in memory, while SPANN keeps them on disk. The nearest ``probes``
    lists are read.
    """
    vectors = _vectors(database)
    heads = max(1, round(settings.heads * len(vectors)))
    copies = min(settings.copies, heads)
    with _one_thread() as faiss:
        index = faiss.index_factory(vectors.shape[1], f"IVF{heads}_HNSW32,Flat")
        index.cp.min_points_per_centroid = 1
        index.nprobe = settings.probes
        index.train(vectors)
        graph = faiss.downcast_index(index.quantizer)
        graph.hnsw.efSearch = max(2 * settings.probes, graph.hnsw.efSearch)
        squared, lists = graph.search(vectors, copies)  # (N, copies)
        reach = (1 + settings.closure) ** 2 * squared[:, :1]
        rows, columns = np.nonzero((lists >= 0) & (squared <= reach))
        added = vectors[rows], rows.astype(np.int64), lists[rows, columns]
        index.add_core(len(rows), *map(faiss.swig_ptr, added))

    def search(queries: Vectors, k: int) -> RawResult:
        ids, scores = _to_cosines(index.search(queries, k * copies))
        return drop_repeats(ids, scores, k)

    return _build_method(encoder, search, len(faiss.serialize_index(index)), len(vectors))


def drop_repeats(ids: npt.NDArray[np.int64], scores: npt.NDArray[np.float32], k: int) -> RawResult:
    """Return the first k results of each query without repeated images: (Q, any) → (Q, k), padded
    with −1 and −inf.

    >>> ids, scores = np.array([[7, 7, 3, -1]]), np.array([[0.9, 0.9, 0.1, -np.inf]])
    >>> drop_repeats(ids, scores, 3)[0].tolist()
    [[7, 3, -1]]
    """
    by_id = ids.argsort(axis=1, kind="stable")
    ordered = np.take_along_axis(ids, by_id, axis=1)
    first = np.ones(ids.shape, dtype=bool)
    np.put_along_axis(first, by_id[:, 1:], ordered[:, 1:] != ordered[:, :-1], axis=1)
    first &= ids >= 0
    order = np.argsort(~first, axis=1, kind="stable")[:, :k]
    kept = np.take_along_axis(first, order, axis=1)
    return (
        np.where(kept, np.take_along_axis(ids, order, axis=1), -1),
        np.where(kept, np.take_along_axis(scores, order, axis=1), -np.inf),
    )


def count_lists(wanted: int, rows: int) -> int:
    """Return the number of inverted lists: ``wanted``, or fewer if too few vectors can train them.

    >>> count_lists(64, 1_000_000), count_lists(64, 100)
    (64, 2)
    """
    return max(1, min(wanted, rows // VECTORS_PER_LIST))


def largest_divisor(width: int, most: int) -> int:
    """Return the largest number of equal parts, at most ``most``, to cut a vector into.

    >>> largest_divisor(256, 32), largest_divisor(100, 32), largest_divisor(7, 4)
    (32, 25, 1)
    """
    return next(parts for parts in range(most, 0, -1) if width % parts == 0)


def _vectors(database: Tensor) -> Vectors:
    if len(database) < MIN_VECTORS:
        raise CatalogError(
            f"baselines: an approximate search cannot be trained on {len(database)} database "
            f"images; at least {MIN_VECTORS} are needed: add images"
        )
    return np.ascontiguousarray(database.cpu().numpy(), dtype=np.float32)


@contextmanager
def _one_thread() -> Iterator[Any]:
    """Yield faiss on one thread; afterwards it uses as many as before, and so does torch, whose
    number of threads may be the same one."""
    faiss = import_faiss()
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield faiss
    finally:
        faiss.omp_set_num_threads(before)


def _to_cosines(result: tuple[Vectors, npt.NDArray[np.int64]]) -> RawResult:
    """Turn faiss's squared distances of unit vectors and ids into ids and cosines."""
    squared, ids = result
    return ids, np.where(ids >= 0, 1 - squared / 2, -np.inf)


def _build_method(encoder: Encoder, search: Search, size: int, count: int) -> Method:
    def search_padded(encoded: Tensor, k: int) -> Result:
        queries = np.ascontiguousarray(encoded.cpu().numpy(), dtype=np.float32)
        ids, scores = search(queries, min(k, count))
        short = ((0, 0), (0, k - ids.shape[1]))
        ids = np.pad(ids, short, constant_values=-1)
        scores = np.pad(scores.astype(np.float32), short, constant_values=-np.inf)
        device = encoded.device
        return Result(torch.from_numpy(ids).to(device), torch.from_numpy(scores).to(device))

    return Method(encoder, search_padded, size / count)
