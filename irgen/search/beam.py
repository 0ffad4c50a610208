"""Beam search over the codes that exist, a whole batch of queries and beams at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from irgen.search.live import Live


class Scorer(Protocol):
    """What a beam search asks of whoever scores the entries: see ``decoder.DecoderState``."""

    @property
    def queries(self) -> int: ...

    @property
    def device(self) -> torch.device: ...

    def gains(self, level: int, last: Tensor, origin: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Beams:
    """The best identifiers of each query, best first.

    ``leaves``: a part's nodes of the last level, (Q, W) int32 each; −1 where the part does not have
    the code. ``codes`` (Q, W, M) int64; ``scores`` (Q, W) float32: the sum of the scorer's gains,
    of a decoder the sequence's log-probability; ``shares`` (Q, W) float32: the same with the gains
    of each step renormalised over the entries that exist, so that the exponentials of all codes
    there are sum to 1. −1 and −inf where there are fewer than W codes. ``opening`` (Q, size)
    float32: the part of it that is the first entry's, of every entry below the largest there is:
    the logarithm of its probability among the first entries that exist, −inf if it does not.
    """

    leaves: tuple[Tensor, ...]
    codes: Tensor
    scores: Tensor
    shares: Tensor
    opening: Tensor


@torch.inference_mode()
def search(scorer: Scorer, parts: Sequence[Live], width: int) -> Beams:
    """The ``width`` best identifiers that exist in any of ``parts``, which share their codebooks.

    A beam stands on a node of every part that has its prefix, so several tries cost one pass of the
    scorer and give what one trie of all their rows would. With ``width`` ≥ the number of distinct
    codes the search is exhaustive.
    """
    queries, device = scorer.queries, scorer.device
    levels = parts[0].trie.levels
    scores = given = torch.zeros(queries, 1, device=device)  # given: log of what exists' share
    origin = last = torch.zeros(queries, 1, dtype=torch.int64, device=device)
    nodes = [torch.zeros(queries, 1, dtype=torch.int32, device=device) for _ in parts]
    codes, opening = last.new_empty(queries, 1, 0), scores
    for level in range(levels):
        size = max(part.widths[level] for part in parts)
        gains = scorer.gains(level, last, origin)[..., :size]  # (Q, beams, size)
        tables = [
            children(part, level, at, size) for part, at in zip(parts, nodes, strict=True)
        ]  # (Q, beams, size) each
        gains = gains.masked_fill(reduce(torch.bitwise_and, tables) < 0, -torch.inf)
        if level == 0:
            opening = gains[:, 0].log_softmax(-1)
        totals = (scores[..., None] + gains).flatten(1)  # (Q, beams × size)
        scores, best = totals.topk(min(width, totals.shape[1]), dim=1)
        origin, last = best // size, best % size  # (Q, beams')
        nodes = [table.flatten(1).gather(1, best) for table in tables]
        given = (given + gains.logsumexp(-1)).gather(1, origin)
        past = codes.gather(1, origin[..., None].expand(-1, -1, level))
        codes = torch.cat([past, last[..., None]], -1)  # (Q, beams', level + 1)
    return _finish(nodes, codes, (scores, scores - given), opening, width)


@torch.inference_mode()
def unconstrained_search(scorer: Scorer, parts: Sequence[Live], width: int) -> Beams:
    """The ``width`` best identifiers of all that can be written, L a level: an ordinary beam
    search, with the tries asked at the end alone. A leaf is −1 in every part for an identifier that
    does not exist. The scorer's gains are log-probabilities, so ``shares`` are the scores."""
    scores = torch.zeros(scorer.queries, 1, device=scorer.device)
    origin = last = torch.zeros(scorer.queries, 1, dtype=torch.int64, device=scorer.device)
    codes, opening = last.new_empty(scorer.queries, 1, 0), scores
    for level in range(parts[0].trie.levels):
        gains = scorer.gains(level, last, origin)  # (Q, beams, L)
        opening = gains[:, 0] if level == 0 else opening
        totals = (scores[..., None] + gains).flatten(1)  # (Q, beams × L)
        scores, best = totals.topk(min(width, totals.shape[1]), dim=1)
        origin, last = best // gains.shape[-1], best % gains.shape[-1]
        past = codes.gather(1, origin[..., None].expand(-1, -1, level))
        codes = torch.cat([past, last[..., None]], -1)  # (Q, beams', level + 1)
    return _finish(leaves(parts, codes), codes, (scores, scores), opening, width)


def children(part: Live, level: int, nodes: Tensor, size: int) -> Tensor:
    """(Q, beams, size) int32: the live node of ``level`` that each entry leads to from each of
    ``nodes`` (Q, beams) of the level above, −1 where there is none; a node −1 has no children."""
    if level == 0:
        return _wide(part.first, size).expand(*nodes.shape, -1)
    if level == 1 and part.second is not None:
        return _wide(part.second, size)[nodes]  # the row of node −1 is the last one, all −1
    trie = part.trie
    offsets, entries = trie.offsets[level - 1], trie.entries[level]
    first, end = offsets[nodes], offsets[nodes + 1]  # of node −1: from the last child to the first
    reach = torch.arange(trie.fanout[level], dtype=torch.int32, device=nodes.device)
    found = first[..., None] + reach  # (Q, beams, fan-out)
    exist = found < end[..., None]
    found = found.masked_fill_(~exist, 0)
    if part.counts is not None:
        exist &= part.counts[level][found] > 0
    places = entries[found].long().masked_fill_(~exist, size)  # those that are not go to the side
    table = found.new_full((*nodes.shape, size + 1), -1)
    return table.scatter_(-1, places, found)[..., :size]


def _wide(table: Tensor, size: int) -> Tensor:
    """The table with ``size`` columns, −1 in new ones."""
    missing = size - table.shape[-1]
    return F.pad(table, (0, missing), value=-1) if missing else table


def _finish(
    nodes: list[Tensor],
    codes: Tensor,
    scores: tuple[Tensor, Tensor],
    opening: Tensor,
    width: int,
) -> Beams:
    """Exactly ``width`` places, blank where nothing was found. ``scores`` = (scores, shares)."""
    dead = scores[0] == -torch.inf
    codes = codes.masked_fill(dead[..., None], -1)
    missing = width - codes.shape[1]
    if missing:
        nodes = [F.pad(at, (0, missing), value=-1) for at in nodes]
        codes = F.pad(codes, (0, 0, 0, missing), value=-1)
    own, shares = (
        F.pad(each.masked_fill(dead, -torch.inf), (0, missing), value=-torch.inf) for each in scores
    )
    return Beams(tuple(nodes), codes, own, shares, opening)


@torch.inference_mode()
def score_codes(scorer: Scorer, parts: Sequence[Live], codes: Tensor) -> tuple[Tensor, Tensor]:
    """The scorer's gains along given codes: (Q, n, M) int64 → the gains (Q, n, M) of each level,
    and the same renormalised over the entries that exist, −inf from where a code does not."""
    origin = torch.zeros(codes.shape[:2], dtype=torch.int64, device=codes.device)
    gains, given = [], []
    for level, tables in enumerate(_descend(parts, codes)):
        every = scorer.gains(level, codes[..., level - 1], origin)  # (Q, n, L)
        exist = reduce(torch.bitwise_and, tables) >= 0  # (Q, n, widest)
        valid = every[..., : exist.shape[-1]].masked_fill(~exist, -torch.inf)
        chosen = codes[..., level, None]
        gains.append(every.gather(-1, chosen))
        there = chosen < exist.shape[-1]
        taken = valid.gather(-1, chosen.clamp_max(exist.shape[-1] - 1))
        given.append(taken.masked_fill(~there, -torch.inf) - valid.logsumexp(-1, keepdim=True))
        origin = torch.arange(codes.shape[1], device=codes.device).expand(codes.shape[:2])
    shares = torch.cat(given, -1)
    return torch.cat(gains, -1), shares.masked_fill(shares.isnan(), -torch.inf)


def leaves(parts: Sequence[Live], codes: Tensor) -> list[Tensor]:
    """Each part's node of the last level that spells each of ``codes`` (Q, n, M), −1 where no live
    row has it: (Q, n) int32 a part."""
    nodes: list[Tensor] = []
    for level, tables in enumerate(_descend(parts, codes)):
        nodes = [_step(table, codes[..., level]) for table in tables]
    return nodes


def _descend(parts: Sequence[Live], codes: Tensor) -> Iterator[list[Tensor]]:
    """Down the tries along codes (Q, n, M): of each level each part's children (Q, n, widest)."""
    nodes = [torch.zeros(codes.shape[:2], dtype=torch.int32, device=codes.device) for _ in parts]
    for level in range(codes.shape[2]):
        size = max(part.widths[level] for part in parts)
        tables = [children(part, level, at, size) for part, at in zip(parts, nodes, strict=True)]
        yield tables
        nodes = [_step(table, codes[..., level]) for table in tables]


def _step(table: Tensor, entries: Tensor) -> Tensor:
    """The nodes (Q, n) that entries (Q, n) lead to, −1 where there is none."""
    places = entries[..., None].clamp_max(table.shape[-1] - 1)
    return table.gather(-1, places)[..., 0].masked_fill(entries >= table.shape[-1], -1)
