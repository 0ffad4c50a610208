"""Time calls: enough repetitions, medians and tails, rivals in turns."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np

Call = Callable[[int], object]  # told the number of the repetition, so that it may vary its input


@dataclass(frozen=True)
class Patience:
    """A call is repeated until ``seconds`` have gone by, at least ``least`` and at most ``most``
    times; ``warm`` calls before it do not count. ``rest`` seconds pass before each call."""

    seconds: float
    least: int
    most: int
    warm: int = 2
    rest: float = 0.0


@dataclass(frozen=True)
class Times:
    """Seconds of each repetition."""

    seconds: tuple[float, ...]

    def milliseconds(self, per: int = 1) -> dict[str, float]:
        """p50, p99, mean and fastest in ms, divided by ``per`` (queries a batch), and the number
        of repetitions. With fewer than 100 of those p99 lies next to the slowest."""
        values = 1000 * np.array(self.seconds) / per
        return {
            "p50": float(np.percentile(values, 50)),
            "p99": float(np.percentile(values, 99)),
            "mean": float(values.mean()),
            "fastest": float(values.min()),
            "repetitions": len(values),
        }


def once(call: Callable[[], object]) -> tuple[float, object]:
    """Return the seconds of one call, and its result."""
    started = time.perf_counter()
    result = call()
    return time.perf_counter() - started, result


def repeat(call: Call, patience: Patience) -> Times:
    """Return the times of one call alone."""
    return in_turns([call], patience)[0]


def in_turns(calls: Sequence[Call], patience: Patience) -> list[Times]:
    """Return the times of several calls that take turns, so that a machine whose speed drifts does
    so for all of them; all are repeated equally often."""
    times: list[list[float]] = [[] for _ in calls]
    for number in range(patience.warm):
        for call in calls:
            call(number)
    for number in _until(patience):
        for call, seconds in zip(calls, times, strict=True):
            time.sleep(patience.rest)
            began = time.perf_counter()
            call(number)
            seconds.append(time.perf_counter() - began)
    return [Times(tuple(seconds)) for seconds in times]


def _until(patience: Patience) -> Iterator[int]:
    """Numbers of repetitions, as long as there is time."""
    started = time.perf_counter()
    for number in count():
        late = time.perf_counter() - started > patience.seconds
        if number >= patience.most or (late and number >= patience.least):
            return
        yield number
