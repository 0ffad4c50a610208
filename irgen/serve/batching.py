"""Answer the requests of many clients together: what waits while the model works is the next batch.

No request waits for others to come: a batch is what is there. The queue is bounded; past it a
request is refused at once. Requests whose client has gone or whose time is over are dropped before
the model sees them.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from typing import Generic, TypeVar

from irgen.serve.errors import OverloadedError

Query = TypeVar("Query")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Timing:
    """Seconds that a request waited in the queue and that its batch took; size of the batch."""

    queued: float
    worked: float
    batch: int


@dataclass(eq=False)
class _Waiting(Generic[Query, Result]):
    query: Query
    future: asyncio.Future[tuple[Result, Timing]]
    arrived: float


class Batcher(Generic[Query, Result]):
    """A queue before ``answer``, which gets at most ``largest`` queries and returns a result or an
    exception for each. It runs in one thread; at most ``capacity`` queries wait."""

    def __init__(
        self,
        answer: Callable[[Sequence[Query]], Sequence[Result | Exception]],
        *,
        largest: int,
        capacity: int,
    ) -> None:
        self._answer, self._largest, self._capacity = answer, largest, capacity
        self._queue: deque[_Waiting[Query, Result]] = deque()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="search")
        self._more = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self._rate = 0.05  # seconds a query took lately

    def __len__(self) -> int:
        """Return the number of queries that wait."""
        return len(self._queue)

    def start(self) -> None:
        """Begin to answer; call it in the event loop."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Answer what waits, then end."""
        self._stopping = True
        self._more.set()
        if self._task is not None:
            await self._task
        self._pool.shutdown(wait=True)

    async def ask(self, queries: Sequence[Query]) -> list[tuple[Result, Timing]]:
        """Return the results of queries, which enter the queue together. Raise OverloadedError if
        it has no room for them, and what ``answer`` returned as an exception. Whoever stops waiting
        for the results takes the queries out of the queue."""
        if len(self._queue) + len(queries) > self._capacity:
            raise OverloadedError(max(1.0, len(self._queue) * self._rate))
        loop = asyncio.get_running_loop()
        waiting = [_Waiting(query, loop.create_future(), time.perf_counter()) for query in queries]
        self._queue.extend(waiting)
        self._more.set()
        return await asyncio.gather(*(entry.future for entry in waiting))

    async def _run(self) -> None:
        while not self._stopping:
            await self._more.wait()
            self._more.clear()
            while batch := self._take():
                await self._answer_batch(batch)

    async def _answer_batch(self, batch: Sequence[_Waiting[Query, Result]]) -> None:
        loop, started = asyncio.get_running_loop(), time.perf_counter()
        queries = [entry.query for entry in batch]
        results: Sequence[Result | Exception]
        try:
            results = await loop.run_in_executor(self._pool, self._answer, queries)
        except Exception as error:  # a fault of ours concerns this batch alone
            results = [error] * len(batch)
        worked = time.perf_counter() - started
        self._rate = 0.8 * self._rate + 0.2 * worked / len(batch)
        for entry, result in zip(batch, results, strict=True):
            _settle(entry, result, Timing(started - entry.arrived, worked, len(batch)))

    def _take(self) -> list[_Waiting[Query, Result]]:
        """Take the next batch from the queue, without what nobody waits for any more."""
        batch: list[_Waiting[Query, Result]] = []
        while self._queue and len(batch) < self._largest:
            entry = self._queue.popleft()
            if not entry.future.done():
                batch.append(entry)
        return batch


def answer_in_groups(
    queries: Sequence[Query],
    key: Callable[[Query], str],
    answer: Callable[[Sequence[Query]], Sequence[Result | Exception]],
) -> list[Result | Exception]:
    """Answer the queries of one key together, in their order; if they fail together, each is tried
    alone. Return a result, or the error that concerns it, for each query."""
    order = sorted(range(len(queries)), key=lambda number: key(queries[number]))
    answers: dict[int, Result | Exception] = {}
    for _, group in groupby(order, key=lambda number: key(queries[number])):
        numbers = list(group)
        results = _answer_group([queries[number] for number in numbers], answer)
        answers |= zip(numbers, results, strict=True)
    return [answers[number] for number in range(len(queries))]


def _answer_group(
    group: Sequence[Query], answer: Callable[[Sequence[Query]], Sequence[Result | Exception]]
) -> Sequence[Result | Exception]:
    try:
        return answer(group)
    except Exception as error:  # it concerns one query, not the others of the batch
        if len(group) == 1:
            return [error]
        return [result for query in group for result in _answer_group([query], answer)]


def _settle(waiting: _Waiting[Query, Result], result: Result | Exception, timing: Timing) -> None:
    if waiting.future.done():  # cancelled meanwhile
        return
    if isinstance(result, Exception):
        waiting.future.set_exception(result)
    else:
        waiting.future.set_result((result, timing))
