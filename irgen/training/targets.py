"""Soften the targets of the retriever: the codes of all matches of an image, not of one alone."""

import torch
from torch import Tensor


def soften(drawn: Tensor, matches: Tensor, exist: Tensor, size: int) -> Tensor:
    """Return at each level how often each of ``size`` codes (L) comes next among the matches that
    share the drawn prefix: shares (B, M, L) float32 that sum to 1.

    ``drawn`` (B, M) int64: the codes of one match of each image, whose first m codes are the prefix
    at level m. ``matches`` (B, k, M) int64: the codes of all its matches; ``exist`` (B, k) bool: an
    image may have fewer than k. Over all draws, the mean of the cross-entropy to these shares is
    that of the cross-entropy to the drawn codes; a single draw is nearer to it.

    >>> codes = torch.tensor([[[0, 1], [0, 2], [3, 1], [0, 1]]])
    >>> soften(codes[:, 0], codes, torch.tensor([[True, True, True, False]]), 4)[0].tolist()
    [[0.6666666865348816, 0.0, 0.0, 0.3333333432674408], [0.0, 0.5, 0.5, 0.0]]
    """
    same = (matches == drawn[:, None])[:, :, :-1].cumprod(-1).bool()  # (B, k, M − 1)
    follow = torch.cat([exist[..., None], same & exist[..., None]], -1).float()  # (B, k, M)
    counts = follow.new_zeros(*drawn.shape, size)  # (B, M, L)
    counts.scatter_add_(2, matches.mT, follow.mT)
    return counts / counts.sum(-1, keepdim=True)
