"""Batches of training images: cached views of a frozen encoder, or pixels augmented each time."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from irgen.compute.batches import full_batches
from irgen.encoding import augment
from irgen.encoding.lazy_pixels import LazyPixels
from irgen.encoding.uncached import UncachedTokens
from irgen.params import Augment

ALL = slice(None)  # a whole batch, or all batches


@dataclass(frozen=True)
class EncodedViews:
    """Outputs of a frozen encoder for V views of each of N images; the first view is plain.

    ``summaries`` (N, V, S) and ``tokens`` (n, V, P, T), of any float type, may be memory-mapped.
    ``uncached`` has the tokens of the other N − n images.
    """

    summaries: np.ndarray
    tokens: np.ndarray | None
    uncached: UncachedTokens | None = None

    def __len__(self) -> int:
        return len(self.summaries)

    def without_tokens(self) -> "EncodedViews":
        """Drop the tokens, by far the larger part, for models that take summaries alone."""
        return EncodedViews(self.summaries, None)

    def prefetch(self, batches: Iterable[Tensor], own: Tensor | slice = ALL) -> Iterator[Tensor]:
        """Yield ``batches`` of rows; of the positions ``own``, images without cached tokens are
        decoded meanwhile."""
        return iter(batches) if self.uncached is None else self.uncached.prefetch(batches, own)

    def training(
        self, rows: Tensor, generator: torch.Generator, own: Tensor | slice = ALL
    ) -> tuple[Tensor, ...]:
        """Return a random view of each of the images ``rows[own]``. Views are drawn for the whole
        batch ``rows`` (B,), whichever positions of it are a process's ``own``."""
        views = torch.randint(self.summaries.shape[1], (len(rows),), generator=generator)
        return self._take(rows[own].numpy(), views[own].numpy())

    def plain(self, rows: Tensor) -> tuple[Tensor, ...]:
        """Return the plain view of the images ``rows`` (B,)."""
        return self._take(rows.numpy(), np.zeros(len(rows), dtype=np.int64))

    def _take(self, rows: np.ndarray, views: np.ndarray) -> tuple[Tensor, ...]:
        summaries = torch.from_numpy(self.summaries[rows, views]).float()
        if self.tokens is None:
            return (summaries,)
        return summaries, torch.from_numpy(self._take_tokens(self.tokens, rows, views)).float()

    def _take_tokens(self, cached: np.ndarray, rows: np.ndarray, views: np.ndarray) -> np.ndarray:
        """Return tokens (B, P, T), from the cache as far as they are there."""
        late = rows >= len(cached)
        if self.uncached is None or not late.any():
            return cached[rows, views]
        tokens = np.empty((len(rows), *cached.shape[2:]), cached.dtype)
        tokens[~late] = cached[rows[~late], views[~late]]
        tokens[late] = self.uncached.encode(rows[late], views[late])
        return tokens


@dataclass(frozen=True)
class Pixels:
    """Decoded images ``pixels`` (N, C, H, H) uint8, for an encoder that is trained on ``size`` ×
    ``size``. They are in memory, or decoded when they are needed."""

    pixels: np.ndarray | LazyPixels
    size: int
    changes: Augment

    def __len__(self) -> int:
        return len(self.pixels)

    def prefetch(self, batches: Iterable[Tensor], own: Tensor | slice = ALL) -> Iterator[Tensor]:
        """Yield ``batches`` of rows; of the next ones, the images at the positions ``own`` are
        decoded meanwhile."""
        if isinstance(self.pixels, LazyPixels):
            return self.pixels.prefetch(batches, own)
        return iter(batches)

    def training(
        self, rows: Tensor, generator: torch.Generator, own: Tensor | slice = ALL
    ) -> tuple[Tensor, ...]:
        """Return the images ``rows[own]`` (b,), each changed at random: (b, C, size, size) float.
        Changes are drawn for the whole batch ``rows`` (B,), as for ``EncodedViews``."""
        draws = augment.draw(len(rows), self.changes, generator)[own]
        taken = torch.from_numpy(self.pixels[rows[own].numpy()])
        return (augment.change(taken, draws, self.changes, self.size),)

    def plain(self, rows: Tensor) -> tuple[Tensor, ...]:
        """Return the images ``rows`` (B,) as they are: (B, C, size, size) uint8."""
        return (torch.from_numpy(self.pixels[rows.numpy()]),)


@dataclass(frozen=True)
class LabelledImages:
    """Images and their class numbers (N,) int64; −1 is a label that training never saw.
    ``features`` (N, S) of the pretrained encoder, if a training shall keep their neighbours."""

    images: EncodedViews | Pixels
    labels: Tensor
    features: Tensor | None = None


def read_in_order(
    images: EncodedViews | Pixels, size: int, own: slice = ALL
) -> Iterator[tuple[Tensor, int]]:
    """Yield rows 0 … N − 1 as ``full_batches`` does, but only batches number ``own``; the next ones
    are prefetched."""
    batches, again = (
        islice(full_batches(len(images), size), own.start, own.stop) for _ in range(2)
    )
    rows = images.prefetch(rows for rows, _ in again)
    return ((batch, new) for batch, (_, new) in zip(rows, batches, strict=True))
