"""The exact scan: every database vector against every query, block by block."""

import torch
from torch import Tensor

from irgen.search.result import Result

BLOCK = 65536  # database rows a matrix product


@torch.inference_mode()
def scan(queries: Tensor, database: Tensor, k: int) -> Result:
    """The k nearest by inner product, ties by row: (Q, D), (N, D) → (Q, k).

    With unit vectors scores are cosines. Never holds more than (Q, k + 65536) scores.
    """
    scores = torch.empty(len(queries), 0, device=queries.device)
    rows = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
    for start in range(0, len(database), BLOCK):
        block = database[start : start + BLOCK]
        found = queries @ block.T.to(queries)  # (Q, block)
        numbers = torch.arange(start, start + len(block), device=queries.device)
        scores = torch.cat([scores, found], 1)
        rows = torch.cat([rows, numbers.expand(len(queries), -1)], 1)
        scores, order = scores.sort(dim=1, descending=True, stable=True)
        scores, rows = scores[:, :k], rows.gather(1, order[:, :k])
    missing = k - scores.shape[1]
    pad = torch.nn.functional.pad
    return Result(
        pad(rows, (0, missing), value=-1), pad(scores.float(), (0, missing), value=-torch.inf)
    )
