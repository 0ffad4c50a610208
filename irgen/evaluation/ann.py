"""What one would use instead of a learned search: approximate nearest neighbours of unit vectors.

The one file that imports faiss (extra ``compare``) and ScaNN (extra ``scann``). Every
function is given unit vectors ``database`` (N, D) and gives a :class:`Method` whose scores are
cosines, as far as its codes can tell them. Indexes are built on one thread, so that the same
vectors give the same index (but see ``scann``); a search takes as many threads as torch.

A search gives no more images than it looks at in its usual effort (efSearch of a graph, the lists
that are probed, what is re-ranked): a deep list, which is judged for map@R alone, is not to be
searched for with an effort that nobody has timed.
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
Found = tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]  # ids and scores, both (Q, any)
Search = Callable[[Vectors, int], Found]

FEWEST = 16  # vectors: what the sixteen entries of a four-bit codebook are trained on
PER_LIST = 39  # training vectors an inverted list, the least that faiss does not warn of


def library() -> Any:
    """faiss. Raises ExtraError, naming what to install, if it is not there."""
    try:
        import faiss
    except ImportError as error:
        raise ExtraError("faiss", "compare", error) from error
    return faiss


def scann_library() -> Any | None:
    """ScaNN, or None: it has wheels for Linux only, and its x86 ones want AVX and FMA."""
    try:
        import scann
    except ImportError:
        return None
    return scann


def hnsw(encoder: Encoder, database: Tensor, settings: Hnsw) -> Method:
    """A navigable graph over the vectors themselves (HNSW, arXiv 1603.09320)."""
    vectors = _vectors(database)
    with _one_thread() as faiss:
        index = faiss.index_factory(vectors.shape[1], f"HNSW{settings.links},Flat")
        index.hnsw.efConstruction, index.hnsw.efSearch = settings.build, settings.search
        index.add(vectors)

    def search(queries: Vectors, k: int) -> Found:
        return _cosines(index.search(queries, min(k, settings.search)))

    return _method(encoder, search, len(faiss.serialize_index(index)), len(vectors))


def ivf_pq(encoder: Encoder, database: Tensor, settings: IvfPq) -> Method:
    """Inverted lists of product-quantised residuals (IVF-PQ, Jégou et al. 2011): a byte a part, or
    fewer bits where there are fewer than 256 vectors to train its codebook on."""
    vectors = _vectors(database)
    parts = divisor(vectors.shape[1], settings.code_bytes)
    bits = min(8, int(np.log2(len(vectors))))
    with _one_thread() as faiss:
        lists = list_count(settings.lists, len(vectors))
        index = faiss.index_factory(vectors.shape[1], f"IVF{lists},PQ{parts}x{bits}")
        index.cp.min_points_per_centroid = index.pq.cp.min_points_per_centroid = 1  # no warnings
        index.do_polysemous_training = False  # takes minutes, for a filter that is not used here
        index.nprobe = settings.probes
        index.train(vectors)
        index.add(vectors)

    def search(queries: Vectors, k: int) -> Found:
        return _cosines(index.search(queries, k))

    return _method(encoder, search, len(faiss.serialize_index(index)), len(vectors))


def scann(encoder: Encoder, database: Tensor, settings: Scann) -> Method:
    """ScaNN (Guo et al. 2020, arXiv 1908.10396) as it is: partitions, four-bit codes trained by an
    anisotropic loss, and the best of them scored exactly; a score's last digit depends on where in
    memory the vectors lie, so that near ties may change places from one build to the next. Raises
    ExtraError if it is missing."""
    library = scann_library()
    if library is None:
        raise ExtraError("scann", "scann")
    vectors, lists = _vectors(database), list_count(settings.lists, len(database))
    builder = library.scann_ops_pybind.builder(vectors, settings.reranked, "dot_product")
    builder.set_n_training_threads(1)
    if lists > 1:
        builder.tree(num_leaves=lists, num_leaves_to_search=min(settings.probes, lists))
    builder.score_ah(settings.part, anisotropic_quantization_threshold=settings.anisotropy).reorder(
        settings.reranked
    )
    searcher, threads = builder.build(), torch.get_num_threads()
    searcher.set_num_threads(threads)

    def search(queries: Vectors, k: int) -> Found:
        size = -(-len(queries) // threads)
        ids, scores = searcher.search_batched_parallel(
            queries, min(k, settings.reranked), batch_size=size
        )
        real = np.isfinite(scores)  # it fills up with image 0 and nan
        return np.where(real, ids.astype(np.int64), -1), np.where(real, scores, -np.inf)

    with tempfile.TemporaryDirectory() as folder:
        searcher.serialize(folder)
        size = sum(path.stat().st_size for path in Path(folder).iterdir())
    return _method(encoder, search, size, len(vectors))


def scann_like(encoder: Encoder, database: Tensor, settings: Scann) -> Method:
    """The nearest that faiss has to ScaNN: inverted lists of four-bit codes that are scanned in
    registers, and the best of them scored exactly. Its codes are trained by the plain error: there
    is no ``anisotropy``."""
    vectors = _vectors(database)
    width, lists = vectors.shape[1], list_count(settings.lists, len(database))
    with _one_thread() as faiss:
        parts = divisor(width, max(1, width // settings.part))
        index = faiss.index_factory(width, f"IVF{lists},PQ{parts}x4fs,RFlat")
        inner = faiss.downcast_index(faiss.extract_index_ivf(index))
        inner.cp.min_points_per_centroid = inner.pq.cp.min_points_per_centroid = 1
        inner.nprobe = settings.probes
        index.train(vectors)
        index.add(vectors)

    def search(queries: Vectors, k: int) -> Found:
        k = min(k, settings.reranked)
        index.k_factor = settings.reranked / k
        return _cosines(index.search(queries, k))

    return _method(encoder, search, len(faiss.serialize_index(index)), len(vectors))


def spann_like(encoder: Encoder, database: Tensor, settings: Spann) -> Method:
    """The nearest that faiss has to SPANN (Chen et al. 2021, arXiv 2111.08566): a graph finds the
    nearest of many centroids, and an image near the border of several lists lies in each of them
    (closure), in up to ``copies`` of those at most 1 + ``closure`` times as far as its nearest.

    The lists are in memory, where SPANN keeps them on a disk; all the nearest ``probes`` are read.
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
        rows, places = np.nonzero((lists >= 0) & (squared <= reach))
        taken = vectors[rows], rows.astype(np.int64), lists[rows, places]
        index.add_core(len(rows), *map(faiss.swig_ptr, taken))

    def search(queries: Vectors, k: int) -> Found:
        ids, scores = _cosines(index.search(queries, k * copies))
        return distinct(ids, scores, k)

    return _method(encoder, search, len(faiss.serialize_index(index)), len(vectors))


def distinct(ids: npt.NDArray[np.int64], scores: npt.NDArray[np.float32], k: int) -> Found:
    """The first k results of each query, of an image that comes several times the first: (Q, any)
    → (Q, k), padded with −1 and −inf.

    >>> ids, scores = np.array([[7, 7, 3, -1]]), np.array([[0.9, 0.9, 0.1, -np.inf]])
    >>> distinct(ids, scores, 3)[0].tolist()
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


def list_count(wanted: int, rows: int) -> int:
    """How many inverted lists: those wanted, or fewer where there are not enough vectors to train
    each on.

    >>> list_count(64, 1_000_000), list_count(64, 100)
    (64, 2)
    """
    return max(1, min(wanted, rows // PER_LIST))


def divisor(width: int, most: int) -> int:
    """The largest number of equal parts, ``most`` at most, that a vector can be cut into.

    >>> divisor(256, 32), divisor(100, 32), divisor(7, 4)
    (32, 25, 1)
    """
    return next(parts for parts in range(most, 0, -1) if width % parts == 0)


def _vectors(database: Tensor) -> Vectors:
    if len(database) < FEWEST:
        raise CatalogError(
            f"baselines: an approximate search cannot be trained on {len(database)} database "
            f"images; {FEWEST} are the fewest: add images"
        )
    return np.ascontiguousarray(database.cpu().numpy(), dtype=np.float32)


@contextmanager
def _one_thread() -> Iterator[Any]:
    """faiss, on one thread within the block and on torch's number of threads from there on."""
    faiss = library()
    faiss.omp_set_num_threads(1)
    try:
        yield faiss
    finally:
        faiss.omp_set_num_threads(torch.get_num_threads())


def _cosines(found: tuple[Vectors, npt.NDArray[np.int64]]) -> Found:
    """faiss's squared distances of unit vectors and ids, as ids and cosines."""
    squared, ids = found
    return ids, np.where(ids >= 0, 1 - squared / 2, -np.inf)


def _method(encoder: Encoder, search: Search, size: int, count: int) -> Method:
    def ask(encoded: Tensor, k: int) -> Result:
        queries = np.ascontiguousarray(encoded.cpu().numpy(), dtype=np.float32)
        ids, scores = search(queries, min(k, count))
        short = ((0, 0), (0, k - ids.shape[1]))
        ids = np.pad(ids, short, constant_values=-1)
        scores = np.pad(scores.astype(np.float32), short, constant_values=-np.inf)
        device = encoded.device
        return Result(torch.from_numpy(ids).to(device), torch.from_numpy(scores).to(device))

    return Method(encoder, ask, size / count)
