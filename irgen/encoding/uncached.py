"""Tokens that the cache has no room for: they are encoded whenever they are drawn."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import tee

import numpy as np
import torch
from torch import Tensor

from irgen.compute.batches import full_batches
from irgen.compute.machine import Machine
from irgen.compute.seeds import seeded_generator
from irgen.encoding import augment
from irgen.encoding.lazy_pixels import LazyPixels
from irgen.models.encoder import ImageEncoder
from irgen.params import Augment


@dataclass(frozen=True, kw_only=True)
class UncachedTokens:
    """Tokens of the views of the images ``first`` … N − 1, to the last bit as they would be cached.

    ``size``: images in a batch of the encoder. The views of image ``i`` were changed at random in
    batch ``i // size`` of ``seed``.
    """

    encoder: ImageEncoder
    pixels: LazyPixels
    first: int
    changes: Augment
    seed: int
    machine: Machine
    size: int

    def prefetch(self, batches: Iterable[Tensor], own: Tensor | slice) -> Iterator[Tensor]:
        """Yield ``batches`` of rows; of the next ones, the images at the positions ``own`` are
        decoded meanwhile."""
        whole, copy = tee(batches)
        shares = (rows[own] for rows in copy)
        decoding = self.pixels.prefetch(share[share >= self.first] for share in shares)
        return (rows for rows, _ in zip(whole, decoding, strict=True))

    @torch.inference_mode()
    def encode(self, rows: np.ndarray, views: np.ndarray) -> np.ndarray:
        """Return the tokens (B, P, T) float16 of these ``views`` (B,) of images ``rows`` (B,)."""
        tokens = np.empty((len(rows), self.encoder.token_count, self.encoder.token_width), "f2")
        for batch, new in full_batches(len(rows), self.size):
            pixels = self._change(rows[batch.numpy()], views[batch.numpy()])
            with self.machine.precision():
                grids = self.encoder(pixels.to(self.machine.device))[1]
            tokens[batch[:new].numpy()] = grids[:new].half().cpu().numpy()
        return tokens

    def _change(self, rows: np.ndarray, views: np.ndarray) -> Tensor:
        """Return pixels (B, C, H, H) of images, changed as these views were; view 0 is plain."""
        plain = torch.from_numpy(self.pixels[rows]).float()
        draws = torch.stack([self._draw(*pair) for pair in zip(rows, views, strict=True)])
        changed = augment.change(plain, draws, self.changes, self.encoder.decoding.size)
        is_plain = torch.from_numpy(views == 0).view(-1, 1, 1, 1)
        return torch.where(is_plain, plain, changed)

    def _draw(self, row: int, view: int) -> Tensor:
        """Return the random numbers that a view of an image was changed by."""
        batch, position = divmod(int(row), self.size)
        generator = seeded_generator(self.seed, int(view), batch)
        return augment.draw(self.size, self.changes, generator)[position]
