"""Residual quantisation: seeded k-means level after level, and codes to vectors and back."""

from dataclasses import dataclass

import torch
from torch import Tensor

from irgen.compute.batches import row_blocks

VERSION = 1  # raise when equal vectors and seeds give other codebooks or codes
SAMPLE = 131_072  # vectors; of more, a sample chooses the centres, and one pass over all moves them
PER_CENTRE = 256  # vectors a centre that the sample has at least
BLOCK = 128  # rows a distance matrix; the last block is padded, so a row's code never depends on N
ROWS = 64 * BLOCK  # of residuals in memory at once


@dataclass(frozen=True)
class Residuals:
    """Subtract the codes of ``vectors`` (N, D) from the rows that are taken, so that vectors mapped
    to a file are quantised without a copy in memory. ``codebooks``: (L, D) of each level so far;
    ``codes``: (N,) int64 of each."""

    vectors: Tensor
    codebooks: tuple[Tensor, ...] = ()
    codes: tuple[Tensor, ...] = ()

    def __len__(self) -> int:
        return len(self.vectors)

    def __getitem__(self, rows: Tensor | slice | int) -> Tensor:
        left = self.vectors[rows]
        for centres, codes in zip(self.codebooks, self.codes, strict=True):
            left = left - centres[codes[rows]]
        return left

    @property
    def device(self) -> torch.device:
        """Return the device of the vectors."""
        return self.vectors.device

    def quantise(self, centres: Tensor) -> "Residuals":
        """Return what one more level, ``centres`` (L, D), leaves over."""
        codes = assign(self, centres)[0]
        return Residuals(self.vectors, (*self.codebooks, centres), (*self.codes, codes))


Vectors = Tensor | Residuals


def assign(vectors: Vectors, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Find the nearest centre of each vector.

    Args: ``vectors`` (N, D) and ``centres`` (L, D) float. Returns indices (N,) int64, the lowest
    one on a tie, and squared distances (N,), never below 0. Memory: one (128, L) block at a time.
    """
    norms = centres.square().sum(1)  # (L,)
    indices = torch.empty(len(vectors), dtype=torch.int64, device=centres.device)
    distances = torch.empty(len(vectors), dtype=centres.dtype, device=centres.device)
    for part in row_blocks(len(vectors), ROWS):
        taken = vectors[part]
        for block in row_blocks(len(taken), BLOCK):
            rows, own = taken[block], slice(part.start + block.start, part.start + block.stop)
            padded = torch.nn.functional.pad(rows, (0, 0, 0, BLOCK - len(rows)))  # (BLOCK, D)
            scores = norms - 2 * padded @ centres.T  # (BLOCK, L)
            best, indices[own] = scores[: len(rows)].min(1)
            distances[own] = (best + rows.square().sum(1)).clamp_min(0)
    return indices, distances


def kmeans_start(vectors: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Draw k-means++ starts (Arthur & Vassilvitskii 2007): (N, D) → (count, D).

    Each next centre is drawn with probability proportional to its squared distance from those
    drawn so far; if every vector is a centre already, the draw is uniform.
    """
    weights = torch.ones(len(vectors), device=vectors.device)
    centres = []
    nearest = torch.full((len(vectors),), torch.inf, device=vectors.device)
    for _ in range(count):
        pick = int(_draw(weights, generator))
        centres.append(vectors[pick])
        nearest = torch.minimum(nearest, (vectors - vectors[pick]).square().sum(1))
        weights = nearest if float(nearest.sum()) > 0 else torch.ones_like(nearest)
    return torch.stack(centres)


def _draw(weights: Tensor, generator: torch.Generator) -> int:
    """Draw an index in proportion to ``weights``, of any length (multinomial stops at 2²⁴)."""
    cumulative = weights.double().cumsum(0)
    point = torch.rand((), dtype=torch.float64, generator=generator).to(cumulative.device)
    return int(
        torch.searchsorted(cumulative, point * cumulative[-1], right=True).clamp_max(
            len(weights) - 1
        )
    )


def kmeans(
    vectors: Vectors, starts: Tensor, iterations: int, generator: torch.Generator
) -> tuple[Tensor, int]:
    """Run Lloyd's iterations from ``starts``, over all vectors.

    A centre that no vector is nearest to is dead; it restarts at a vector drawn in proportion to
    its squared distance from its own centre. Returns centres (L, D) and the number of restarts.
    """
    centres, restarts = starts.clone(), 0
    for _ in range(iterations):
        nearest, distances = assign(vectors, centres)
        sums = torch.zeros_like(centres)
        for part in row_blocks(len(vectors), ROWS):
            sums.index_add_(0, nearest[part], vectors[part])
        counts = torch.bincount(nearest, minlength=len(centres))
        alive = counts > 0
        moved = torch.where(alive[:, None], sums / counts.clamp_min(1)[:, None], centres)
        if float(distances.sum()) > 0:
            for dead in torch.nonzero(~alive).flatten().tolist():
                pick = _draw(distances, generator)
                moved[dead] = vectors[pick]
                distances[pick] = 0
                restarts += 1
        if torch.equal(moved, centres):
            break
        centres = moved
    return centres, restarts


def fit_centres(
    vectors: Vectors,
    starts: Tensor | None,
    count: int,
    iterations: int,
    generator: torch.Generator,
) -> tuple[Tensor, int]:
    """Run k-means from ``starts`` (count, D), or from k-means++ starts: ``vectors`` (N, D) →
    centres (count, D) and the number of restarts.

    Of more than S = max(SAMPLE, PER_CENTRE · L) vectors, a sample of S takes all steps, and then
    all take one. Time: O(S L D) for all starts and for an iteration, and O(N L D) once; memory: the
    sample, and 16 bytes a vector.
    """
    size = max(SAMPLE, PER_CENTRE * count)
    rows: slice | Tensor = slice(None)
    if len(vectors) > size:
        drawn = torch.randperm(len(vectors), generator=generator)[:size].sort().values
        rows = drawn.to(vectors.device)
    sample = vectors[rows]
    if starts is None:
        starts = kmeans_start(sample, count, generator)
    centres, restarts = kmeans(sample, starts, iterations, generator)
    if len(vectors) > size:
        centres, more = kmeans(vectors, centres, min(iterations, 1), generator)
        restarts += more
    return centres, restarts


def fit(
    vectors: Tensor, codebooks: Tensor | None, shape: tuple[int, int], iterations: int, seed: int
) -> tuple[Tensor, int]:
    """Fit codebooks by residual k-means (paper, section 3.1): level m quantises what levels 1 … m−1
    left over.

    Args: ``vectors`` (N, D) with N ≥ L; ``codebooks`` (M, L, D) to go on from, or None for seeded
    k-means++ starts; ``shape`` (M, L). Returns codebooks (M, L, D) and the number
    of restarted dead codes. Time: M × that of ``fit_centres``; memory: 8 bytes a code besides.
    """
    levels, size = shape
    assert len(vectors) >= size, "more codes than vectors"
    residual, restarts = Residuals(vectors), 0
    fitted: list[Tensor] = []
    for level in range(levels):
        if fitted:
            residual = residual.quantise(fitted[-1])
        generator = torch.Generator().manual_seed(seed * 1000 + level)
        starts = None if codebooks is None else codebooks[level]
        centres, restarted = fit_centres(residual, starts, size, iterations, generator)
        fitted.append(centres)
        restarts += restarted
    return torch.stack(fitted), restarts


def encode(vectors: Tensor, codebooks: Tensor) -> Tensor:
    """Quantise vectors greedily, level by level: (N, D), (M, L, D) → codes (N, M) int64. Time
    O(N M L D); memory: the codes, and a block of residuals."""
    codes = torch.empty(len(vectors), len(codebooks), dtype=torch.int64, device=vectors.device)
    for rows in row_blocks(len(vectors), ROWS):
        residual = Residuals(vectors[rows])
        for centres in codebooks:
            residual = residual.quantise(centres)
        codes[rows] = torch.stack(residual.codes, dim=1)
    return codes


def decode(codes: Tensor, codebooks: Tensor) -> Tensor:
    """Return prefix reconstructions f^≤m: (N, M), (M, L, D) → (N, M, D); [:, -1] uses all codes."""
    vectors = torch.stack([codebooks[m][codes[:, m]] for m in range(codes.shape[1])], dim=1)
    return vectors.cumsum(1)


def usage(codes: Tensor, size: int) -> dict[str, float]:
    """Measure how codes (N, M) spread: per level the codes in use and their perplexity (exp of the
    entropy, from 1 to L); the share of images whose code collides, and the most that share one."""
    metrics: dict[str, float] = {}
    for level in range(codes.shape[1]):
        counts = torch.bincount(codes[:, level], minlength=size).double()
        shares = counts[counts > 0] / counts.sum()
        metrics[f"codes_used/level_{level + 1}"] = float(len(shares))
        metrics[f"perplexity/level_{level + 1}"] = float(torch.exp(-(shares * shares.log()).sum()))
    _, groups = torch.unique(codes, dim=0, return_counts=True)
    metrics["collision_share"] = float(groups[groups > 1].sum()) / len(codes)
    metrics["largest_bucket"] = float(groups.max())
    return metrics
