"""Draw a database that looks like a real one: clustered unit vectors and their residual codes."""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from irgen.files.atomic import atomic
from irgen.files.digests import digest
from irgen.files.records import read_json, write_json
from irgen.models import quantizer

REAL = (  # ``spread`` of the codes of the README's runs, seed 0
    {
        "name": "digits",
        "levels": 4,
        "codebook": 32,
        "images": 1438,
        "share/level_1": 0.838,
        "share/level_2": 0.797,
        "share/level_3": 0.882,
        "share/level_4": 0.894,
        "distinct": 0.962,
        "per_code": 1.095,
    },
    {
        "name": "omniglot-small",
        "levels": 2,
        "codebook": 256,
        "images": 3630,
        "share/level_1": 0.922,
        "share/level_2": 0.690,
        "distinct": 0.842,
        "per_code": 1.692,
    },
)
CHUNK = 10_000  # rows drawn with one seed: the first n rows are the same whatever the count


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Describe the distribution of the data. Clusters have sizes ∝ rank^−``skew`` and lie in
    groups. A vector is its cluster's centre plus a normal deviate whose scale falls along the
    dimensions, as the spectrum of a trained embedding does."""

    width: int = 256  # D
    groups: int = 60
    clusters: int = 3000
    skew: float = 0.7
    apart: float = 0.8  # length of a centre's deviation from its group's
    stray: float = 0.3  # mean length of a vector's deviation from its centre
    decay: float = 1.0  # scale of dimension i: i^−decay
    noise: float = 0.3  # length of a query's deviation from its database vector
    levels: int = 3  # M, as irgen init chooses for a million images
    codebook: int = 256  # L
    sample: int = 20_000  # vectors the codebooks are fitted on, none of them in the database
    iterations: int = 12
    seed: int = 0


@dataclass(frozen=True)
class Database:
    """Hold ``vectors`` (N, D) float16, unit; ``codes`` (N, M) uint8 or int32; ``codebooks``
    (M, L, D) float32; the ``digest`` of the recipe; and the ``seconds`` that drawing, fitting and
    encoding took."""

    vectors: np.ndarray
    codes: Tensor
    codebooks: Tensor
    digest: str
    seconds: dict[str, float]

    def first(self, count: int) -> "Database":
        """Return the first ``count`` rows."""
        return replace(self, vectors=self.vectors[:count], codes=self.codes[:count].contiguous())

    def float32(self) -> np.ndarray:
        """Return the vectors as faiss expects them: (N, D) float32, contiguous, in memory."""
        return np.ascontiguousarray(self.vectors, dtype=np.float32)


def load_database(recipe: Recipe, count: int, cache: Path) -> Database:
    """Return the first ``count`` vectors of a recipe and their codes. They are made once and stored
    below ``cache``; the vectors are memory-mapped."""
    name = digest(asdict(recipe))[:12]
    folder = cache / f"synthetic-{name}-{count}"
    if not folder.exists():
        with atomic(folder) as temporary:
            temporary.mkdir()
            _make(recipe, count, temporary)
    return Database(
        np.load(folder / "vectors.npy", mmap_mode="r"),
        torch.from_numpy(np.load(folder / "codes.npy")),
        torch.from_numpy(np.load(folder / "codebooks.npy")),
        name,
        read_json(folder / "seconds.json"),
    )


def _make(recipe: Recipe, count: int, folder: Path) -> None:
    started = time.perf_counter()
    sample = torch.cat(
        [_draw(recipe, -1 - i, CHUNK)[0] for i in range(-(-recipe.sample // CHUNK))]
    )[: recipe.sample]
    shape = (recipe.levels, recipe.codebook)
    codebooks, _ = quantizer.fit(sample, None, shape, recipe.iterations, recipe.seed)
    fitted = time.perf_counter()
    vectors = np.lib.format.open_memmap(
        folder / "vectors.npy", mode="w+", dtype=np.float16, shape=(count, recipe.width)
    )
    kind = np.uint8 if recipe.codebook <= 256 else np.int32
    codes = np.empty((count, recipe.levels), kind)
    draw_seconds, start, draw_started = 0.0, 0, time.perf_counter()
    for rows in draw_chunks(recipe, count):
        part = slice(start, start + len(rows))
        vectors[part] = rows.numpy()
        draw_seconds += time.perf_counter() - draw_started
        codes[part] = quantizer.encode(rows, codebooks).numpy()
        start, draw_started = part.stop, time.perf_counter()
    vectors.flush()
    np.save(folder / "codes.npy", codes)
    np.save(folder / "codebooks.npy", codebooks.numpy())
    encode_seconds = time.perf_counter() - fitted - draw_seconds
    seconds = {"fit": fitted - started, "draw": draw_seconds, "encode": encode_seconds}
    write_json(folder / "seconds.json", seconds)


def draw_chunks(recipe: Recipe, count: int) -> Iterator[Tensor]:
    """Yield the first ``count`` vectors of a recipe in chunks (n, D) float32, n ≤ CHUNK."""
    for chunk, start in enumerate(range(0, count, CHUNK)):
        yield _draw(recipe, chunk, CHUNK)[0][: count - start]


def _draw(recipe: Recipe, chunk: int, count: int) -> tuple[Tensor, Tensor]:
    """Return the rows of one chunk, rounded to float16 as they are stored: vectors (count, D)
    float32 and the numbers of their clusters (count,)."""
    centres, shares = _clusters(recipe)
    generator = _generator(recipe, 1, chunk)
    cluster = torch.multinomial(shares, count, replacement=True, generator=generator)
    deviation = torch.randn(count, recipe.width, generator=generator) * _spectrum(recipe)
    vectors = _unit(centres[cluster] + recipe.stray * deviation)
    return vectors.half().float(), cluster


def _clusters(recipe: Recipe) -> tuple[Tensor, Tensor]:
    """Return the clusters' centres (clusters, D), unit, and shares of the database (clusters,)."""
    generator = _generator(recipe, 0, 0)
    spectrum = _spectrum(recipe)
    groups = _unit(torch.randn(recipe.groups, recipe.width, generator=generator) * spectrum)
    group = torch.randint(recipe.groups, (recipe.clusters,), generator=generator)
    away = torch.randn(recipe.clusters, recipe.width, generator=generator) * spectrum
    shares = torch.arange(1, recipe.clusters + 1).double() ** -recipe.skew
    return _unit(groups[group] + recipe.apart * away), shares / shares.sum()


def _spectrum(recipe: Recipe) -> Tensor:
    """Return the scale of each dimension (D,); the deviate has a mean squared length of 1."""
    scales = torch.arange(1, recipe.width + 1).double() ** -recipe.decay
    return (scales / scales.norm()).float()


def draw_new_images(recipe: Recipe, count: int) -> Tensor:
    """Return ``count`` ≤ CHUNK vectors that no database of the recipe has: (count, D) float32."""
    assert count <= CHUNK, "only one chunk is drawn"
    return _draw(recipe, -1000, CHUNK)[0][:count]


def draw_queries(recipe: Recipe, vectors: np.ndarray, count: int) -> Tensor:
    """Return ``count`` random rows of ``vectors`` (N, D) plus noise: (count, D) float32, unit."""
    generator = _generator(recipe, 2, len(vectors))
    rows = torch.randint(len(vectors), (count,), generator=generator).numpy()
    originals = torch.from_numpy(vectors[rows].astype(np.float32))
    noise = torch.randn(count, recipe.width, generator=generator) * _spectrum(recipe)
    return _unit(originals + recipe.noise * noise)


def _generator(recipe: Recipe, *parts: int) -> torch.Generator:
    entropy = [recipe.seed, *(part % 2**32 for part in parts)]
    state = np.random.SeedSequence(entropy).generate_state(1)
    return torch.Generator().manual_seed(int(state[0]))


def _unit(vectors: Tensor) -> Tensor:
    return torch.nn.functional.normalize(vectors, dim=-1)


def spread(codes: Tensor, size: int) -> dict[str, float]:
    """Measure the use of codebooks of ``size`` = L by codes (N, M): ``perplexity/level_m`` (exp of
    the entropy), ``share/level_m`` (perplexity / L), ``distinct`` (distinct codes / N),
    ``largest_bucket`` (images of the commonest code) and ``per_code`` (mean number of images that
    share an image's code, itself included)."""
    codes = codes.long()
    usage = quantizer.usage(codes, size)
    levels = range(1, codes.shape[1] + 1)
    values = {f"perplexity/level_{m}": usage[f"perplexity/level_{m}"] for m in levels}
    values |= {f"share/level_{m}": usage[f"perplexity/level_{m}"] / size for m in levels}
    packed = torch.zeros(len(codes), dtype=torch.int64)
    for column in codes.T:
        packed = packed * size + column
    counts = torch.unique(packed, return_counts=True)[1].double()
    values["distinct"] = len(counts) / len(codes)
    values["largest_bucket"] = float(counts.max())
    values["per_code"] = float(counts.square().sum()) / len(codes)
    return values
