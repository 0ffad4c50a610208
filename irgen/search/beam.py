"""Beam search over the code sequences that exist, for a whole batch of queries at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from irgen.search.live import LiveTrie


class Scorer(Protocol):
    """Scores the next code of every beam: ``DecoderState`` or ``CodebookScorer``."""

    @property
    def queries(self) -> int: ...

    @property
    def device(self) -> torch.device: ...

    def step_scores(self, level: int, last: Tensor, origin: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Beams:
    """Best code sequences of each query, best first; −1 and −inf where there are fewer than W.

    ``leaves``: one (Q, W) int32 a trie, its node of the last level, −1 where the trie lacks the
    code sequence. ``codes`` (Q, W, M) int64. ``scores`` (Q, W) float32: sums of the scorer's step
    scores; of a decoder, the log-probability of the sequence. ``normalised_log_probs`` (Q, W)
    float32: the same with each step renormalised over the codes that exist, so that the
    probabilities of all existing sequences sum to 1. ``first_code_log_probs`` (Q, L₀) float32: the
    renormalised log-probability of each first code, −inf if no image has it; L₀ = largest first
    code + 1.
    """

    leaves: tuple[Tensor, ...]
    codes: Tensor
    scores: Tensor
    normalised_log_probs: Tensor
    first_code_log_probs: Tensor

    def select(self, part: slice) -> "Beams":
        """Return only a part of each query's beams."""
        return Beams(
            leaves=tuple(leaves[:, part] for leaves in self.leaves),
            codes=self.codes[:, part],
            scores=self.scores[:, part],
            normalised_log_probs=self.normalised_log_probs[:, part],
            first_code_log_probs=self.first_code_log_probs,
        )


@dataclass(frozen=True)
class _Frontier:
    """Beams after some levels: ``scores``, ``origin`` and ``last`` (Q, beams), ``codes``
    (Q, beams, level). ``origin``: the beam of the step before; ``last``: the latest code."""

    scores: Tensor
    origin: Tensor
    last: Tensor
    codes: Tensor

    @classmethod
    def start(cls, scorer: Scorer) -> "_Frontier":
        """Return one empty beam a query."""
        scores = torch.zeros(scorer.queries, 1, device=scorer.device)
        zero = torch.zeros(scorer.queries, 1, dtype=torch.int64, device=scorer.device)
        return cls(scores, zero, zero, zero.new_empty(scorer.queries, 1, 0))

    def extend(self, step_scores: Tensor, width: int) -> "_Frontier":
        """Extend every beam by every code, step scores (Q, beams, L); keep the ``width`` best."""
        totals = (self.scores[..., None] + step_scores).flatten(1)  # (Q, beams × L)
        scores, best = totals.topk(min(width, totals.shape[1]), dim=1)
        return self._take(scores, best, step_scores.shape[-1])

    def extend_greedily(self, step_scores: Tensor, width: int) -> "_Frontier":
        """Extend as ``extend`` does, but the first beam by its best code comes first and stays."""
        totals = (self.scores[..., None] + step_scores).flatten(1)  # (Q, beams × L)
        greedy = step_scores[:, 0].argmax(1, keepdim=True)
        ranked = totals.scatter(1, greedy, torch.inf)
        best = ranked.topk(min(width, totals.shape[1]), dim=1).indices
        return self._take(totals.gather(1, best), best, step_scores.shape[-1])

    def _take(self, scores: Tensor, best: Tensor, size: int) -> "_Frontier":
        """Return the beams at positions ``best`` (Q, beams') of beams × ``size`` codes."""
        origin, last = best // size, best % size
        past = self.codes.gather(1, origin[..., None].expand(-1, -1, self.codes.shape[-1]))
        return _Frontier(scores, origin, last, torch.cat([past, last[..., None]], -1))


@torch.inference_mode()
def search(
    scorer: Scorer, tries: Sequence[LiveTrie], width: int, prefixes: int | None = None
) -> Beams:
    """Return the ``width`` best code sequences that exist in any of ``tries``. Before the last
    level, the ``prefixes`` best are kept; None: as many as at the last.

    The tries share their codebooks. A beam stands on a node of every trie that has its prefix, so
    several tries cost one pass of the scorer and give what one trie of all their rows would. With
    ``width`` and ``prefixes`` ≥ the number of distinct code sequences the search is exhaustive.
    """
    beams, nodes = _Frontier.start(scorer), _roots(tries, (scorer.queries, 1), scorer.device)
    normalised = first_code_log_probs = beams.scores
    levels, narrow = tries[0].trie.levels, width if prefixes is None else min(width, prefixes)
    for level in range(levels):
        size = max(trie.widths[level] for trie in tries)
        tables = _children_of_all(tries, level, nodes, size)
        steps = _score_children(scorer, level, beams, tables)  # (Q, beams, size)
        log_probs = steps.log_softmax(-1)  # among the codes that exist
        if level == 0:
            first_code_log_probs = log_probs[:, 0]
        beams = beams.extend(steps, width if level == levels - 1 else narrow)
        taken = beams.origin * size + beams.last  # (Q, beams')
        nodes = [table.flatten(1).gather(1, taken) for table in tables]
        normalised = normalised.gather(1, beams.origin) + log_probs.flatten(1).gather(1, taken)
    return _pad_beams(beams, nodes, normalised, first_code_log_probs, width)


@torch.inference_mode()
def nearest_search(scorer: Scorer, tries: Sequence[LiveTrie], width: int) -> Beams:
    """Return the code sequence that a search with one beam finds, then the ``width`` − 1 best of
    the others that exist in any of ``tries``. Step scores are not normalised, and neither are the
    results."""
    beams, nodes = _Frontier.start(scorer), _roots(tries, (scorer.queries, 1), scorer.device)
    first_scores = beams.scores
    for level in range(tries[0].trie.levels):
        size = max(trie.widths[level] for trie in tries)
        tables = _children_of_all(tries, level, nodes, size)
        steps = _score_children(scorer, level, beams, tables)  # (Q, beams, size)
        if level == 0:
            first_scores = steps[:, 0]
        beams = beams.extend_greedily(steps, width)
        taken = beams.origin * size + beams.last  # (Q, beams')
        nodes = [table.flatten(1).gather(1, taken) for table in tables]
    return _pad_beams(beams, nodes, beams.scores, first_scores, width)


@torch.inference_mode()
def unconstrained_search(scorer: Scorer, tries: Sequence[LiveTrie], width: int) -> Beams:
    """Return the ``width`` best of all L^M code sequences: an ordinary beam search.

    Only the finished sequences are looked up in ``tries``. A leaf is −1 in every trie for a
    sequence that does not exist. The step scores are log-probabilities already, so
    ``normalised_log_probs`` are the scores.
    """
    beams = _Frontier.start(scorer)
    first_code_log_probs = beams.scores
    for level in range(tries[0].trie.levels):
        steps = scorer.step_scores(level, beams.last, beams.origin)  # (Q, beams, L)
        if level == 0:
            first_code_log_probs = steps[:, 0]
        beams = beams.extend(steps, width)
    nodes = find_leaves(tries, beams.codes)
    return _pad_beams(beams, nodes, beams.scores, first_code_log_probs, width)


def _roots(tries: Sequence[LiveTrie], shape: tuple[int, ...], device: torch.device) -> list[Tensor]:
    return [torch.zeros(shape, dtype=torch.int32, device=device) for _ in tries]


def _children_of_all(
    tries: Sequence[LiveTrie], level: int, nodes: list[Tensor], size: int
) -> list[Tensor]:
    """Return each trie's children of its nodes: (Q, beams, size) int32 a trie."""
    return [children(trie, level, above, size) for trie, above in zip(tries, nodes, strict=True)]


def _score_children(scorer: Scorer, level: int, beams: _Frontier, tables: list[Tensor]) -> Tensor:
    """Return the step scores (Q, beams, size) of every beam's codes, −inf where no trie has one."""
    steps = scorer.step_scores(level, beams.last, beams.origin)[..., : tables[0].shape[-1]]
    return steps.masked_fill(reduce(torch.bitwise_and, tables) < 0, -torch.inf)


def children(live: LiveTrie, level: int, nodes: Tensor, size: int) -> Tensor:
    """Return the live node of ``level`` that each code leads to from each of ``nodes``.

    ``nodes`` (Q, beams) are of the level above. Returns (Q, beams, size) int32, −1 where there is
    no live child; a node −1 has no children.
    """
    if level == 0:
        return _pad_columns(live.first, size).expand(*nodes.shape, -1)
    if level == 1 and live.second is not None:
        return _pad_columns(live.second, size)[nodes]  # the row of node −1 is the last, all −1
    trie = live.trie
    offsets, codes = trie.offsets[level - 1], trie.codes[level]
    first, end = offsets[nodes], offsets[nodes + 1]  # of node −1: from the last child to the first
    reach = torch.arange(trie.fanout[level], dtype=torch.int32, device=nodes.device)
    child = first[..., None] + reach  # (Q, beams, fan-out)
    exist = child < end[..., None]
    child = child.masked_fill_(~exist, 0)
    if live.counts is not None:
        exist &= live.counts[level][child] > 0
    columns = codes[child].long().masked_fill_(~exist, size)  # one more column takes the others
    table = child.new_full((*nodes.shape, size + 1), -1)
    return table.scatter_(-1, columns, child)[..., :size]


def _pad_columns(table: Tensor, size: int) -> Tensor:
    """Return the table with ``size`` columns, −1 in new ones."""
    missing = size - table.shape[-1]
    return F.pad(table, (0, missing), value=-1) if missing else table


def _pad_beams(
    beams: _Frontier,
    nodes: list[Tensor],
    normalised_log_probs: Tensor,
    first_code_log_probs: Tensor,
    width: int,
) -> Beams:
    """Return exactly ``width`` beams a query, blank where there are fewer."""
    missing, dead = width - beams.scores.shape[1], beams.scores == -torch.inf

    def blank(values: Tensor) -> Tensor:
        return F.pad(values.masked_fill(dead, -torch.inf), (0, missing), value=-torch.inf)

    codes = beams.codes.masked_fill(dead[..., None], -1)
    return Beams(
        leaves=tuple(F.pad(node, (0, missing), value=-1) for node in nodes),
        codes=F.pad(codes, (0, 0, 0, missing), value=-1),
        scores=blank(beams.scores),
        normalised_log_probs=blank(normalised_log_probs),
        first_code_log_probs=first_code_log_probs,
    )


@torch.inference_mode()
def score_codes(scorer: Scorer, tries: Sequence[LiveTrie], codes: Tensor) -> tuple[Tensor, Tensor]:
    """Score given code sequences (Q, n, M) int64.

    Returns the step scores (Q, n, M) of each level, and the same renormalised over the codes that
    exist, −inf from where a sequence leaves the tries.
    """
    origin = torch.zeros(codes.shape[:2], dtype=torch.int64, device=codes.device)
    step_scores, normalised = [], []
    for level, tables in enumerate(_descend(tries, codes)):
        steps = scorer.step_scores(level, codes[..., level - 1], origin)  # (Q, n, L)
        exist = reduce(torch.bitwise_and, tables) >= 0  # (Q, n, widest)
        valid = steps[..., : exist.shape[-1]].masked_fill(~exist, -torch.inf)
        chosen = codes[..., level, None]
        step_scores.append(steps.gather(-1, chosen))
        in_table = chosen < exist.shape[-1]
        log_probs = valid.log_softmax(-1)  # among the codes that exist
        taken = log_probs.gather(-1, chosen.clamp_max(exist.shape[-1] - 1))
        normalised.append(taken.masked_fill(~in_table, -torch.inf))
        origin = torch.arange(codes.shape[1], device=codes.device).expand(codes.shape[:2])
    log_probs = torch.cat(normalised, -1)
    return torch.cat(step_scores, -1), log_probs.masked_fill(log_probs.isnan(), -torch.inf)


def find_leaves(tries: Sequence[LiveTrie], codes: Tensor) -> list[Tensor]:
    """Return each trie's leaf of each of ``codes`` (Q, n, M): (Q, n) int32 a trie, −1 where no live
    row has the code sequence."""
    nodes: list[Tensor] = []
    for level, tables in enumerate(_descend(tries, codes)):
        nodes = [_follow(table, codes[..., level]) for table in tables]
    return nodes


def _descend(tries: Sequence[LiveTrie], codes: Tensor) -> Iterator[list[Tensor]]:
    """Walk down the tries along codes (Q, n, M); yield each level's children (Q, n, widest)."""
    nodes = _roots(tries, codes.shape[:2], codes.device)
    for level in range(codes.shape[2]):
        size = max(trie.widths[level] for trie in tries)
        tables = _children_of_all(tries, level, nodes, size)
        yield tables
        nodes = [_follow(table, codes[..., level]) for table in tables]


def _follow(table: Tensor, codes: Tensor) -> Tensor:
    """Return the nodes (Q, n) that codes (Q, n) lead to, −1 where there is none."""
    columns = codes[..., None].clamp_max(table.shape[-1] - 1)
    return table.gather(-1, columns)[..., 0].masked_fill(codes >= table.shape[-1], -1)
