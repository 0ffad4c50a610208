"""Identifiers drawn at random: the lower bound for generative retrieval."""

import hashlib
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor


def random_codes(sha256s: Iterable[str], shape: tuple[int, int], seed: int) -> Tensor:
    """Draw codes (N, M) int64 of images, uniform over the L codes of each level; ``shape`` (M, L).

    They depend on content hash and seed alone: copies of an image share a code.

    >>> first, second, again = random_codes(["ab", "cd", "ab"], (3, 256), seed=0).tolist()
    >>> first == again, first == second
    (True, False)
    """
    levels, size = shape
    drawn = [
        hashlib.shake_256(f"{seed}:{sha256}".encode()).digest(8 * levels) for sha256 in sha256s
    ]
    numbers = np.frombuffer(b"".join(drawn), dtype="<u8").reshape(-1, levels)
    return torch.from_numpy((numbers % size).astype(np.int64))  # 2⁶⁴ numbers on ≤ 2¹⁶: even enough
