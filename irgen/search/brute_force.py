"""Brute-force search: every database vector against every query, block by block (exact k-NN)."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from irgen.search.result import Result

BLOCK = 65536  # database rows a matrix product


class Rows(Protocol):
    """Vectors (N, D) of a database: a tensor, or what makes the rows of a slice (n, D)."""

    def __len__(self) -> int: ...
    def __getitem__(self, rows: slice, /) -> Tensor: ...


@torch.inference_mode()
def brute_force_search(
    queries: Tensor,
    database: Rows,
    k: int,
    extra_scores: Callable[[int, int], Tensor] | None = None,
) -> Result:
    """Return the k nearest by inner product, ties by row: (Q, D), (N, D) → (Q, k).

    With unit vectors the scores are cosines. Memory: (Q, k + 65536) scores.
    ``extra_scores(start, end)`` returns (Q, end − start) scores to add for these rows.
    """
    scores = torch.empty(len(queries), 0, device=queries.device)
    rows = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
    for start in range(0, len(database), BLOCK):
        block = database[start : start + BLOCK]
        kept, block_scores = scores.shape[1], queries @ block.T.to(queries)
        if extra_scores is not None:
            block_scores += extra_scores(start, start + len(block))
        scores, columns = top_k(torch.cat([scores, block_scores], 1), k)
        kept_rows = rows.gather(1, columns.clamp_max(kept - 1)) if kept else columns
        rows = torch.where(columns < kept, kept_rows, start + columns - kept)
    missing = k - scores.shape[1]
    return Result(
        F.pad(rows, (0, missing), value=-1), F.pad(scores.float(), (0, missing), value=-torch.inf)
    )


def top_k(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k highest scores of each row and their columns: (Q, n) → (Q, min(k, n)) twice.

    Ties go to the lower column, which ``torch.topk`` does not promise. Only k scores are sorted.

    >>> top_k(torch.tensor([[0.5, 0.9, 0.5, 0.5]]), 3)[1].tolist()
    [[1, 0, 2]]
    """
    k = min(k, scores.shape[1])
    values, columns = scores.topk(min(k + 1, scores.shape[1]))
    assert not values.isnan().any(), "a score is not a number"
    tied = (values[:, k - 1 : k] == values[:, k : k + 1]).any(1)  # for the last rank
    columns = columns[:, :k].sort(dim=1).values
    if tied.any():
        columns[tied] = _take_lowest_of_ties(scores[tied], values[tied, k - 1 : k], k)
    values, order = scores.gather(1, columns).sort(dim=1, descending=True, stable=True)
    return values, columns.gather(1, order)


def _take_lowest_of_ties(scores: Tensor, last: Tensor, k: int) -> Tensor:
    """Return the columns (Q, k), ascending, of all ``scores`` (Q, n) above ``last`` (Q, 1), and of
    the first ones equal to it."""
    above, level = scores > last, scores == last
    room = k - above.sum(1, keepdim=True)
    chosen = above | (level & (level.cumsum(1, dtype=torch.int32) <= room))
    return chosen.nonzero()[:, 1].view(len(scores), k)
