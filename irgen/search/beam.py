"""Beam search constrained to a trie, a whole batch of queries and beams at a time."""

from dataclasses import dataclass

import torch
from torch import Tensor

from irgen.models.retriever import Retriever
from irgen.search.trie import Trie


@dataclass(frozen=True)
class Beams:
    """The best identifiers of each query, best first.

    ``leaves`` (Q, W) int64: nodes of the trie's last level, −1 where the trie has fewer than W
    codes. ``codes`` (Q, W, M) int64, −1 there. ``scores`` (Q, W) float32: the sequence's
    log-probability under the decoder, −inf there.
    """

    leaves: Tensor
    codes: Tensor
    scores: Tensor


@torch.inference_mode()
def search(retriever: Retriever, summary: Tensor, tokens: Tensor, trie: Trie, width: int) -> Beams:
    """The ``width`` most probable identifiers that exist in ``trie``.

    Args: ``summary`` (Q, S) and ``tokens`` (Q, P, T) of the queries. With ``width`` ≥ the number of
    distinct codes the search is exhaustive. The image's keys and values are computed once a query
    and shared by its beams; the self-attention cache moves with the beams.
    """
    queries, device = len(summary), summary.device
    memory = retriever.remember(summary, tokens)
    scores = torch.zeros(queries, 1, device=device)
    nodes = torch.zeros(queries, 1, dtype=torch.int64, device=device)
    codes = torch.empty(queries, 1, 0, dtype=torch.int64, device=device)
    cache = None
    for level in range(trie.levels):
        last = codes[..., -1].clamp_min(0) if level else nodes
        logits, cache = retriever.step(level, last, memory, cache)
        gains = logits.float().log_softmax(-1)  # (Q, beams, L)
        children, exist = _children(trie, level, nodes)  # (Q, beams, C)
        entries = trie.entries[level][children].long()  # (Q, beams, C)
        totals = scores[..., None] + gains.gather(-1, entries)
        totals = torch.where(exist, totals, -torch.inf).flatten(1)  # (Q, beams × C)
        scores, best = totals.topk(min(width, totals.shape[1]), dim=1)  # (Q, beams')
        origin = best // children.shape[-1]  # the beam each one grew from
        dead = scores == -torch.inf
        nodes = children.flatten(1).gather(1, best).masked_fill(dead, -1)
        written = entries.flatten(1).gather(1, best)
        past = codes.gather(1, origin[..., None].expand(-1, -1, level))
        codes = torch.cat([past, written[..., None]], -1).masked_fill(dead[..., None], -1)
        if level + 1 < trie.levels:
            cache = _reorder(cache, origin)
    return _pad(Beams(nodes, codes, scores), width)


def _children(trie: Trie, level: int, nodes: Tensor) -> tuple[Tensor, Tensor]:
    """Children of each beam's node: their numbers (Q, beams, C) and which of them exist, with C the
    level's largest fan-out. A dead beam (node −1) has none."""
    reach = torch.arange(trie.fanout[level], device=nodes.device)
    if level == 0:
        shape = (*nodes.shape, len(reach))
        return reach.expand(shape), torch.ones(shape, dtype=torch.bool, device=nodes.device)
    offsets = trie.offsets[level - 1]
    first, end = offsets[nodes.clamp_min(0)], offsets[nodes.clamp_min(0) + 1]
    children = first[..., None] + reach
    exist = (children < end[..., None]) & (nodes >= 0)[..., None]
    return torch.where(exist, children, 0), exist


def _reorder(cache: list[tuple[Tensor, Tensor]], origin: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Self-attention keys and values (Q, beams, H, m, d), each beam taking those of its origin."""
    rows = torch.arange(len(origin), device=origin.device)[:, None]
    return [(key[rows, origin], value[rows, origin]) for key, value in cache]


def _pad(beams: Beams, width: int) -> Beams:
    """The same beams with exactly ``width`` places."""
    missing = width - beams.scores.shape[1]
    if missing <= 0:
        return beams
    pad = torch.nn.functional.pad
    return Beams(
        pad(beams.leaves, (0, missing), value=-1),
        pad(beams.codes, (0, 0, 0, missing), value=-1),
        pad(beams.scores, (0, missing), value=-torch.inf),
    )
