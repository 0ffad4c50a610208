"""The exact scan: every database vector against every query, block by block."""

from collections.abc import Callable

import torch
from torch import Tensor

from irgen.search.result import Result

BLOCK = 65536  # database rows a matrix product


@torch.inference_mode()
def scan(
    queries: Tensor,
    database: Tensor,
    k: int,
    added: Callable[[int, int], Tensor] | None = None,
) -> Result:
    """The k nearest by inner product, ties by row: (Q, D), (N, D) → (Q, k).

    With unit vectors scores are cosines. Never holds more than (Q, k + 65536) scores. What
    ``added(start, end)`` gives for these rows, (Q, end − start), is added to their scores.
    """
    scores = torch.empty(len(queries), 0, device=queries.device)
    rows = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
    for start in range(0, len(database), BLOCK):
        block = database[start : start + BLOCK]
        kept, found = scores.shape[1], queries @ block.T.to(queries)
        if added is not None:
            found += added(start, start + len(block))
        scores, places = best(torch.cat([scores, found], 1), k)
        known = rows.gather(1, places.clamp_max(kept - 1)) if kept else places
        rows = torch.where(places < kept, known, start + places - kept)
    missing = k - scores.shape[1]
    pad = torch.nn.functional.pad
    return Result(
        pad(rows, (0, missing), value=-1), pad(scores.float(), (0, missing), value=-torch.inf)
    )


def best(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k highest of each row, ties by place, and their places: (Q, n) → (Q, min(k, n)) twice.

    Tells the k-th highest first, so that no more than k are put in order.

    >>> best(torch.tensor([[0.5, 0.9, 0.5, 0.5]]), 3)[1].tolist()
    [[1, 0, 2]]
    """
    k = min(k, scores.shape[1])
    found, places = scores.topk(k)
    assert not found.isnan().any(), "a score is no number"
    last = found[:, -1:]  # (Q, 1)
    if ((scores >= last).sum(1) > k).any():  # there are ties for the last place
        above, level = scores > last, scores == last
        room = k - above.sum(1, keepdim=True)
        chosen = above | (level & (level.cumsum(1, dtype=torch.int32) <= room))
        places = chosen.nonzero()[:, 1].view(len(scores), k)
    else:
        places = places.sort(dim=1).values
    values, order = scores.gather(1, places).sort(dim=1, descending=True, stable=True)
    return values, places.gather(1, order)
