"""Watch beam search grow: the code prefixes that it keeps at every level, with their
probabilities."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from irgen.search import beam
from irgen.search.beam import Scorer
from irgen.search.live import LiveTrie


@dataclass(frozen=True)
class Prefix:
    """First codes of some images, and the retriever's log-probability of them."""

    codes: tuple[int, ...]
    log_probability: float


@dataclass
class _Recorder:
    """A scorer of one query that remembers the beams it was asked about."""

    scorer: Scorer
    prefixes: list[Tensor] = field(default_factory=list)  # (beams, level) a level
    totals: list[Tensor] = field(default_factory=list)  # (beams,)
    _steps: Tensor | None = None  # (beams, L) of the level before

    @property
    def queries(self) -> int:
        return self.scorer.queries

    @property
    def device(self) -> torch.device:
        return self.scorer.device

    def step_scores(self, level: int, last: Tensor, origin: Tensor) -> Tensor:
        if self._steps is not None:
            self._record(last[0], origin[0], self._steps)
        steps = self.scorer.step_scores(level, last, origin)
        self._steps = steps[0]
        return steps

    def _record(self, last: Tensor, origin: Tensor, steps: Tensor) -> None:
        past = self.prefixes[-1] if self.prefixes else last.new_empty(1, 0)
        before = self.totals[-1] if self.totals else steps.new_zeros(1)
        self.prefixes.append(torch.cat([past[origin], last[:, None]], 1))
        self.totals.append(before[origin] + steps[origin, last])


@torch.inference_mode()
def trace(scorer: Scorer, tries: Sequence[LiveTrie], width: int) -> list[list[Prefix]]:
    """Return the prefixes that a beam search for one query keeps at each level, likeliest first:
    those of 1 code, of 2, and so on. Where fewer exist than ``width``, some are of no image."""
    assert scorer.queries == 1, "one query is traced"
    recorder = _Recorder(scorer)
    beams = beam.search(recorder, tries, width)
    levels = [
        _sort(prefixes, totals)
        for prefixes, totals in zip(recorder.prefixes, recorder.totals, strict=True)
    ]
    return [*levels, _sort(beams.codes[0], beams.scores[0])]


def _sort(prefixes: Tensor, totals: Tensor) -> list[Prefix]:
    kept = totals > -torch.inf
    order = totals[kept].argsort(descending=True)
    rows, scores = prefixes[kept][order].tolist(), totals[kept][order].tolist()
    return [Prefix(tuple(codes), score) for codes, score in zip(rows, scores, strict=True)]
