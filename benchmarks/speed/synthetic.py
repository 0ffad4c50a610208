"""A database that looks like a real one: clustered unit vectors and the residual codes of them."""

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

REAL = (  # what ``spread`` says of the README's runs, seed 0
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
    """Distribution of the data. Clusters have sizes ∝ rank^−``skew`` and sit in groups; a vector
    strays from its cluster's centre by a normal deviate whose scale falls along the dimensions,
    as the spectrum of a trained embedding does."""

    width: int = 256  # D
    groups: int = 60
    clusters: int = 3000
    skew: float = 0.7
    apart: float = 0.8  # length of a centre's deviation from its group's
    stray: float = 0.3  # mean length of a vector's deviation from its centre
    decay: float = 1.0  # scale of dimension i: i^−decay
    noise: float = 0.3  # length of a query's deviation from its database vector
    levels: int = 4  # M
    codebook: int = 256  # L
    sample: int = 20_000  # vectors the codebooks are fitted on, none of them in the database
    iterations: int = 12
    seed: int = 0


@dataclass(frozen=True)
class Database:
    """``vectors`` (N, D) float16, unit; ``codes`` (N, M) uint8 or int32; ``codebooks`` (M, L, D)
    float32; ``digest`` of the recipe; ``seconds``: what drawing, fitting and encoding took when it
    was done."""

    vectors: np.ndarray
    codes: Tensor
    codebooks: Tensor
    digest: str
    seconds: dict[str, float]

    def first(self, count: int) -> "Database":
        """Its first ``count`` rows."""
        return replace(self, vectors=self.vectors[:count], codes=self.codes[:count].contiguous())

    def float32(self) -> np.ndarray:
        """Return the vectors as faiss expects them: (N, D) float32, contiguous, in memory."""
        return np.ascontiguousarray(self.vectors, dtype=np.float32)


def database(recipe: Recipe, count: int, cache: Path) -> Database:
    """The first ``count`` vectors of a recipe and their codes, kept below ``cache``; the vectors
    are memory-mapped."""
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
    drawing, start, began = 0.0, 0, time.perf_counter()
    for rows in draw_chunks(recipe, count):
        part = slice(start, start + len(rows))
        vectors[part] = rows.numpy()
        drawing += time.perf_counter() - began
        codes[part] = quantizer.encode(rows, codebooks).numpy()
        start, began = part.stop, time.perf_counter()
    vectors.flush()
    np.save(folder / "codes.npy", codes)
    np.save(folder / "codebooks.npy", codebooks.numpy())
    encoded = time.perf_counter() - fitted - drawing
    seconds = {"fit": fitted - started, "draw": drawing, "encode": encoded}
    write_json(folder / "seconds.json", seconds)


def draw_chunks(recipe: Recipe, count: int) -> Iterator[Tensor]:
    """Yield the first ``count`` vectors of a recipe in chunks (n, D) float32, n ≤ CHUNK."""
    for chunk, start in enumerate(range(0, count, CHUNK)):
        yield _draw(recipe, chunk, CHUNK)[0][: count - start]


def _draw(recipe: Recipe, chunk: int, count: int) -> tuple[Tensor, Tensor]:
    """Rows of one chunk, rounded as they are kept: vectors (count, D) float32 and their clusters'
    numbers (count,)."""
    centres, shares = _clusters(recipe)
    generator = _generator(recipe, 1, chunk)
    cluster = torch.multinomial(shares, count, replacement=True, generator=generator)
    deviation = torch.randn(count, recipe.width, generator=generator) * _spectrum(recipe)
    vectors = _unit(centres[cluster] + recipe.stray * deviation)
    return vectors.half().float(), cluster


def _clusters(recipe: Recipe) -> tuple[Tensor, Tensor]:
    """Centres (clusters, D), unit, and shares (clusters,) of the database."""
    generator = _generator(recipe, 0, 0)
    spectrum = _spectrum(recipe)
    groups = _unit(torch.randn(recipe.groups, recipe.width, generator=generator) * spectrum)
    group = torch.randint(recipe.groups, (recipe.clusters,), generator=generator)
    away = torch.randn(recipe.clusters, recipe.width, generator=generator) * spectrum
    shares = torch.arange(1, recipe.clusters + 1).double() ** -recipe.skew
    return _unit(groups[group] + recipe.apart * away), shares / shares.sum()


def _spectrum(recipe: Recipe) -> Tensor:
    """Scale (D,) of every dimension; a normal deviate of it has a mean squared length of 1."""
    scales = torch.arange(1, recipe.width + 1).double() ** -recipe.decay
    return (scales / scales.norm()).float()


def newcomers(recipe: Recipe, count: int) -> Tensor:
    """``count`` ≤ 10,000 vectors of the same kind that no database holds: (count, D) float32."""
    assert count <= CHUNK, "one chunk is drawn"
    return _draw(recipe, -1000, CHUNK)[0][:count]


def queries(recipe: Recipe, vectors: np.ndarray, count: int) -> Tensor:
    """``count`` rows of ``vectors`` (N, D), drawn at random, plus noise: (count, D) float32 unit
    vectors."""
    generator = _generator(recipe, 2, len(vectors))
    rows = torch.randint(len(vectors), (count,), generator=generator).numpy()
    found = torch.from_numpy(vectors[rows].astype(np.float32))
    noise = torch.randn(count, recipe.width, generator=generator) * _spectrum(recipe)
    return _unit(found + recipe.noise * noise)


def _generator(recipe: Recipe, *parts: int) -> torch.Generator:
    entropy = [recipe.seed, *(part % 2**32 for part in parts)]
    state = np.random.SeedSequence(entropy).generate_state(1)
    return torch.Generator().manual_seed(int(state[0]))


def _unit(vectors: Tensor) -> Tensor:
    return torch.nn.functional.normalize(vectors, dim=-1)


def spread(codes: Tensor, size: int) -> dict[str, float]:
    """How codes (N, M) below ``size`` = L spread: ``perplexity/level_m`` (exp of the entropy),
    ``share/level_m`` (the perplexity / L), ``distinct`` (distinct codes / N), ``largest_bucket``
    and ``per_code``, the mean number of images that share an image's code, itself included."""
    whole = codes.long()
    used = quantizer.usage(whole, size)
    levels = range(1, codes.shape[1] + 1)
    found = {f"perplexity/level_{m}": used[f"perplexity/level_{m}"] for m in levels}
    found |= {f"share/level_{m}": used[f"perplexity/level_{m}"] / size for m in levels}
    packed = torch.zeros(len(codes), dtype=torch.int64)
    for column in whole.T:
        packed = packed * size + column
    buckets = torch.unique(packed, return_counts=True)[1].double()
    found["distinct"] = len(buckets) / len(codes)
    found["largest_bucket"] = float(buckets.max())
    found["per_code"] = float(buckets.square().sum()) / len(codes)
    return found
