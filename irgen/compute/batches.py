"""Cut rows into batches of one size, or into blocks."""

from collections.abc import Iterator

import torch


def full_batches(count: int, size: int) -> Iterator[tuple[torch.Tensor, int]]:
    """Yield rows 0 … count − 1 in batches of exactly ``size``, and how many of each are new.

    The last batch is filled up with its last row, so that a row's result never depends on the
    number of rows.
    """
    for start in range(0, count, size):
        rows = torch.arange(start, start + size).clamp_max(count - 1)
        yield rows, min(size, count - start)


def row_blocks(count: int, size: int) -> Iterator[slice]:
    """Yield rows 0 … count − 1 in blocks of at most ``size``.

    >>> list(row_blocks(5, 3))
    [slice(0, 3, None), slice(3, 5, None)]
    """
    return (slice(start, min(start + size, count)) for start in range(0, count, size))
