"""Time calls: repeat them often enough, take medians and tails, and interleave rivals."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np

TimedCall = Callable[[int], object]  # takes the number of the repeat, so that its input can vary


@dataclass(frozen=True)
class Repeats:
    """Say how often a call is repeated: until ``seconds`` have passed, at least ``minimum`` and at
    most ``maximum`` times. ``warmups`` calls before these are not timed. ``pause``: seconds before
    each call."""

    seconds: float
    minimum: int
    maximum: int
    warmups: int = 2
    pause: float = 0.0


@dataclass(frozen=True)
class Times:
    """Hold the seconds of each repeat."""

    seconds: tuple[float, ...]

    def milliseconds(self, per: int = 1) -> dict[str, float]:
        """Return p50, p99, mean and fastest in ms, divided by ``per`` (queries a batch), and the
        number of repeats. With fewer than 100 of them, p99 is close to the slowest."""
        values = 1000 * np.array(self.seconds) / per
        return {
            "p50": float(np.percentile(values, 50)),
            "p99": float(np.percentile(values, 99)),
            "mean": float(values.mean()),
            "fastest": float(values.min()),
            "repetitions": len(values),
        }


def time_once(call: Callable[[], object]) -> tuple[float, object]:
    """Return the seconds of one call, and its result."""
    started = time.perf_counter()
    result = call()
    return time.perf_counter() - started, result


def time_repeats(call: TimedCall, repeats: Repeats) -> Times:
    """Return the times of one call."""
    return time_interleaved([call], repeats)[0]


def time_interleaved(calls: Sequence[TimedCall], repeats: Repeats) -> list[Times]:
    """Return the times of several calls. The calls take turns, so that a machine whose speed drifts
    drifts for all of them. All are repeated equally often."""
    times: list[list[float]] = [[] for _ in calls]
    for number in range(repeats.warmups):
        for call in calls:
            call(number)
    for number in _count_repeats(repeats):
        for call, seconds in zip(calls, times, strict=True):
            time.sleep(repeats.pause)
            started = time.perf_counter()
            call(number)
            seconds.append(time.perf_counter() - started)
    return [Times(tuple(seconds)) for seconds in times]


def _count_repeats(repeats: Repeats) -> Iterator[int]:
    """Yield 0, 1, 2, … as long as another repeat is due."""
    started = time.perf_counter()
    for number in count():
        late = time.perf_counter() - started > repeats.seconds
        if number >= repeats.maximum or (late and number >= repeats.minimum):
            return
        yield number
