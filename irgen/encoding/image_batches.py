"""Cut images into batches, and pass these through a model."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from irgen.catalog.images.pixels import Decoding, stream_pixels
from irgen.catalog.shards import Images
from irgen.compute.batches import full_batches
from irgen.compute.machine import Machine
from irgen.files.hash_rows import unpack_hashes


@dataclass(frozen=True, kw_only=True)
class ImageBatches:
    """Images in ``len`` batches of exactly ``size``: the last one is filled up with its last image.

    Batches are numbered 0, 1 … and on, round after round: batch ``len`` is batch 0 again.
    ``keys``: packed content hashes.
    """

    images: Images
    keys: np.ndarray
    decoding: Decoding
    size: int

    def __len__(self) -> int:
        return -(-len(self.keys) // self.size)

    def rows(self, number: int) -> slice:
        """Return the rows of the images that are new in a batch."""
        start = number % len(self) * self.size
        return slice(start, min(start + self.size, len(self.keys)))

    def count(self, number: int) -> int:
        """Return the number of images that are new in a batch."""
        return len(range(len(self.keys))[self.rows(number)])

    def hashes(self, number: int) -> list[str]:
        """Return the content hashes of the images that are new in a batch."""
        return unpack_hashes(self.keys[self.rows(number)])

    def decode(self, numbers: Iterable[int], threads: int) -> Iterator[np.ndarray]:
        """Yield these batches (B, C, H, H) uint8, decoded ahead by ``threads`` (0: one a core).
        Raises ImageError naming the image that does not decode."""
        hashes = map(self.hashes, numbers)
        for batch in stream_pixels(self.images, hashes, self.decoding, threads=threads):
            rows, _ = next(full_batches(len(batch), self.size))
            yield batch if len(batch) == self.size else batch[rows.numpy()]

    def decode_batch(self, number: int) -> np.ndarray:
        """Return one batch (B, C, H, H) uint8, decoded by one thread."""
        return next(self.decode([number], threads=1))


class Movable(Protocol):
    """A module, or several together, that ``to`` moves to a device and returns."""

    def to(self, device: torch.device, /) -> Any: ...


@dataclass(frozen=True)
class BatchEncoder:
    """A model, and how a batch passes through it: ``encode(model, machine, number, pixels)`` takes
    (B, C, H, H) uint8 on the CPU, and returns tensors (B, …) on any device.

    It can be pickled, and gives the same arrays wherever it runs.
    """

    model: Movable  # in eval mode
    encode: Callable[[Any, Machine, int, Tensor], Sequence[Tensor]]

    def load(self, machine: Machine) -> Callable[[int, np.ndarray], list[np.ndarray]]:
        """Move the model to ``machine``, and return a function from a batch's number and pixels to
        arrays (B, …)."""
        model = self.model.to(machine.device)

        @torch.inference_mode()
        def encode(number: int, pixels: np.ndarray) -> list[np.ndarray]:
            with machine.precision():
                tensors = self.encode(model, machine, number, torch.from_numpy(pixels))
            return [tensor.cpu().numpy() for tensor in tensors]

        return encode
