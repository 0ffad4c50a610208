"""Batches of training images: cached views of a frozen encoder, or pixels augmented each time."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from irgen.encoding.augment import augment
from irgen.params import Augment


@dataclass(frozen=True)
class EncodedViews:
    """Outputs of a frozen encoder for V views of each of N images; the first view is plain.

    ``summaries`` (N, V, S) and ``tokens`` (N, V, P, T), of any float type, may be memory-mapped.
    """

    summaries: np.ndarray
    tokens: np.ndarray | None

    def __len__(self) -> int:
        return len(self.summaries)

    def without_tokens(self) -> "EncodedViews":
        """Drop the tokens, by far the larger part, for models that take summaries alone."""
        return EncodedViews(self.summaries, None)

    def training(self, rows: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Return a random view of each of the images ``rows`` (B,)."""
        views = torch.randint(self.summaries.shape[1], (len(rows),), generator=generator)
        return self._take(rows.numpy(), views.numpy())

    def plain(self, rows: Tensor) -> tuple[Tensor, ...]:
        """Return the plain view of the images ``rows`` (B,)."""
        return self._take(rows.numpy(), np.zeros(len(rows), dtype=np.int64))

    def _take(self, rows: np.ndarray, views: np.ndarray) -> tuple[Tensor, ...]:
        arrays = (self.summaries,) if self.tokens is None else (self.summaries, self.tokens)
        return tuple(torch.from_numpy(array[rows, views]).float() for array in arrays)


@dataclass(frozen=True)
class Pixels:
    """Decoded images ``pixels`` (N, C, H, H) uint8, for an encoder that is trained on ``size`` ×
    ``size``."""

    pixels: np.ndarray
    size: int
    changes: Augment

    def __len__(self) -> int:
        return len(self.pixels)

    def training(self, rows: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Return the images ``rows`` (B,), each changed at random: (B, C, size, size) float."""
        taken = torch.from_numpy(self.pixels[rows.numpy()])
        return (augment(taken, self.changes, self.size, generator),)

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
