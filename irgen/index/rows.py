"""Images on their way into an index: row by row what is kept of each, checked."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from torch import Tensor

from irgen.errors import IndexingError
from irgen.index.items import distinct_keys, some
from irgen.index.metadata import ID
from irgen.models import quantizer

BLOCK = 1 << 16  # rows looked at together
SLACK = 0.01  # how far from 1 the length of a unit vector may be


@dataclass(frozen=True)
class Rows:
    """Some images. ``items``: id and metadata; ``keys`` (n,) int64; ``codes`` (n, M) of the
    narrowest type that holds every entry of the codebooks; ``embeddings`` (n, D) floats,
    float16 where they are kept;
    ``trained`` (n,) bool."""

    items: pl.DataFrame
    keys: np.ndarray
    codes: Tensor
    embeddings: Tensor
    trained: Tensor

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, places: np.ndarray) -> "Rows":
        """Some of the images, in the order of their ``places`` (m,)."""
        numbers = torch.from_numpy(places)
        return Rows(
            self.items[places],
            self.keys[places],
            self.codes[numbers],
            self.embeddings[numbers],
            self.trained[numbers],
        )

    @classmethod
    def joined(cls, parts: Sequence["Rows"]) -> "Rows":
        """All images of ``parts``, of which there is at least one."""
        return cls(
            pl.concat([part.items for part in parts]),
            np.concatenate([part.keys for part in parts]),
            torch.cat([part.codes for part in parts]),
            torch.cat([part.embeddings for part in parts]),
            torch.cat([part.trained for part in parts]),
        )


def code_type(size: int) -> torch.dtype:
    """The narrowest integer type for codes below ``size``.

    >>> code_type(256), code_type(257)
    (torch.uint8, torch.int16)
    """
    return torch.uint8 if size <= 256 else torch.int16 if size <= 32768 else torch.int32


def checked_embeddings(embeddings: Tensor | np.ndarray, ids: Sequence[str], width: int) -> Tensor:
    """``embeddings`` (n, D) as a tensor on the CPU, of any float type.

    Raises IndexingError unless there is one a id, of ``width`` D, finite and of length 1.
    """
    found = torch.as_tensor(embeddings).detach().cpu()
    if found.shape != (len(ids), width) or not found.is_floating_point():
        kind = str(found.dtype).removeprefix("torch.")
        raise IndexingError(
            f"embeddings are {kind} of shape {tuple(found.shape)}: {len(ids):,} ids of this index "
            f"take floats of shape ({len(ids)}, {width})"
        )
    for start in range(0, len(found), BLOCK):
        lengths = found[start : start + BLOCK].float().square().sum(1).sqrt()  # (block,)
        wrong = torch.nonzero(~((lengths - 1).abs() <= SLACK)).flatten()  # NaN is wrong, too
        if len(wrong):
            names = [ids[start + row] for row in wrong.tolist()]
            raise IndexingError(
                f"the embedding of {some(names)} is not finite or not of length 1 (the first has "
                f"length {float(lengths[wrong[0]]):.4g}): normalise embeddings, x / |x|"
            )
    return found


def checked_codes(codes: Tensor | np.ndarray, count: int, codebooks: Tensor) -> Tensor:
    """``codes`` (n, M) as a tensor of ``code_type``. Raises IndexingError unless there is one an
    image and each is an entry of the codebooks (M, L, D)."""
    found, (levels, size, _) = torch.as_tensor(codes).detach().cpu(), codebooks.shape
    if found.shape != (count, levels) or found.is_floating_point() or found.dtype == torch.bool:
        kind = str(found.dtype).removeprefix("torch.")
        raise IndexingError(
            f"codes are {kind} of shape {tuple(found.shape)}: {count:,} images of this index take "
            f"integers of shape ({count}, {levels})"
        )
    if count and not 0 <= int(found.min()) <= int(found.max()) < size:
        raise IndexingError(
            f"codes from {int(found.min())} to {int(found.max())}: the codebooks have entries 0 to "
            f"{size - 1}"
        )
    return found.to(code_type(size))


def checked_trained(trained: Tensor | np.ndarray, count: int) -> Tensor:
    """``trained`` (n,) as a bool tensor. Raises IndexingError unless it is one an image."""
    found = torch.as_tensor(trained).detach().cpu()
    if found.shape != (count,) or found.dtype != torch.bool:
        kind = str(found.dtype).removeprefix("torch.")
        raise IndexingError(f"trained is {kind} {tuple(found.shape)}, not bool ({count},)")
    return found


def checked(
    items: pl.DataFrame,
    embeddings: Tensor | np.ndarray,
    codes: Tensor | np.ndarray | None,
    trained: Tensor | np.ndarray,
    codebooks: Tensor,
) -> Rows:
    """Rows of ``items`` whose ids and metadata have been looked at; of ``codes`` None, those that
    the codebooks (M, L, D) give. Raises IndexingError for anything else that does not fit the items
    or the codebooks, and for two ids of one key."""
    ids = items[ID].to_list()
    found = checked_embeddings(embeddings, ids, codebooks.shape[2])
    return Rows(
        items=items,
        keys=distinct_keys(ids),
        codes=checked_codes(
            quantizer.encode(found.float(), codebooks) if codes is None else codes,
            len(ids),
            codebooks,
        ),
        embeddings=found,
        trained=checked_trained(trained, len(ids)),
    )
