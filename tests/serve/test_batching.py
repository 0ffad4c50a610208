"""Requests of many clients are answered together, within bounds."""

import asyncio
import threading

import pytest

from irgen.serve.batching import Batcher
from irgen.serve.errors import OverloadedError


class Gate:
    """An ``answer`` that waits until it is let through, and remembers its batches."""

    def __init__(self):
        self.batches, self.open = [], threading.Event()

    def __call__(self, queries):
        self.batches.append(list(queries))
        self.open.wait(30)
        return [ValueError(q) if q < 0 else 10 * q for q in queries]


def run(gate, use, **bounds):
    async def main():
        batcher = Batcher(gate, **({"largest": 8, "capacity": 16} | bounds))
        batcher.start()
        try:
            return await use(batcher)
        finally:
            gate.open.set()
            await batcher.stop()

    return asyncio.run(main())


async def ask(batcher, query):
    return (await batcher.ask([query]))[0]


async def until(condition):
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.001)


def test_what_waits_while_the_model_works_is_the_next_batch():
    gate = Gate()

    async def use(batcher):
        first = asyncio.create_task(ask(batcher, 0))
        await until(lambda: gate.batches)
        rest = [asyncio.create_task(ask(batcher, number)) for number in range(1, 6)]
        await until(lambda: len(batcher) == 5)
        gate.open.set()
        return [result for result, _ in await asyncio.gather(first, *rest)]

    assert run(gate, use) == [0, 10, 20, 30, 40, 50]
    assert gate.batches == [[0], [1, 2, 3, 4, 5]]


def test_a_batch_has_a_bound_and_an_error_concerns_its_query_alone():
    gate = Gate()
    gate.open.set()

    async def use(batcher):
        asked = (ask(batcher, number) for number in (1, -2, 3))
        return await asyncio.gather(*asked, return_exceptions=True)

    first, second, third = run(gate, use, largest=2)
    assert (first[0], third[0]) == (10, 30) and isinstance(second, ValueError)
    assert max(map(len, gate.batches)) <= 2


def test_past_the_capacity_a_request_is_refused_at_once():
    gate = Gate()

    async def use(batcher):
        waiting = [asyncio.create_task(ask(batcher, 0))]
        await until(lambda: gate.batches)
        waiting += [asyncio.create_task(ask(batcher, number)) for number in (1, 2)]
        await until(lambda: len(batcher) == 2)
        with pytest.raises(OverloadedError) as error:
            await ask(batcher, 3)
        gate.open.set()
        await asyncio.gather(*waiting)
        return error.value.retry_after

    assert run(gate, use, capacity=2) >= 1
    assert [3] not in gate.batches


def test_what_nobody_waits_for_any_more_is_not_answered():
    gate = Gate()

    async def use(batcher):
        first = asyncio.create_task(ask(batcher, 0))
        await until(lambda: gate.batches)
        gone = asyncio.create_task(ask(batcher, 1))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ask(batcher, 2), 0.01)
        gone.cancel()
        await asyncio.sleep(0)
        gate.open.set()
        await first
        return await ask(batcher, 3)

    assert run(gate, use)[0] == 30
    assert gate.batches == [[0], [3]]


def test_a_fault_of_a_batch_does_not_end_the_service():
    calls = []

    def answer(queries):
        calls.append(queries)
        if len(calls) == 1:
            raise RuntimeError("a fault")
        return queries

    async def main():
        batcher = Batcher(answer, largest=8, capacity=8)
        batcher.start()
        with pytest.raises(RuntimeError, match="a fault"):
            await ask(batcher, "first")
        result, _ = await ask(batcher, "second")
        await batcher.stop()
        return result

    assert asyncio.run(main()) == "second"


def test_a_batch_that_is_under_way_is_answered_before_the_end():
    gate = Gate()

    async def main():
        batcher = Batcher(gate, largest=1, capacity=8)
        batcher.start()
        requests = [asyncio.create_task(ask(batcher, number)) for number in (1, 2)]
        await until(lambda: gate.batches)
        stopping = asyncio.create_task(batcher.stop())
        await asyncio.sleep(0)
        gate.open.set()
        await stopping
        return [result for result, _ in await asyncio.gather(*requests)]

    assert asyncio.run(main()) == [10, 20]
