"""Decoding of strangers' files: what happens to one request happens to no other."""

import asyncio
import os
import time

import numpy as np
import pytest

from irgen.catalog.images.pixels import Decoding
from irgen.errors import ImageError
from irgen.serve.errors import OverloadedError
from irgen.serve.workers import Workers

DECODING = Decoding(size=16, channels=3)


@pytest.fixture(scope="module")
def workers():
    workers = Workers(2, seconds=10, capacity=64)
    yield workers
    workers.close()


def run(*jobs):
    async def gather():
        return await asyncio.gather(*(job() for job in jobs), return_exceptions=True)

    return asyncio.run(gather())


@pytest.mark.parametrize("job", [(os._exit, 1), (np.ones, 4 << 30)], ids=["dies", "has no memory"])
def test_a_worker_that_dies_or_has_no_memory_fails_its_own_request_alone(workers, png, job):
    fine = [lambda number=number: workers.decode(png(number), DECODING) for number in range(4)]
    results = run(*fine[:2], lambda: workers._run(*job), *fine[2:])
    broken = results.pop(2)
    assert isinstance(broken, ImageError) and "too much memory" in str(broken)
    assert [result.shape for result in results] == [(3, 16, 16)] * 4


def test_an_image_that_takes_too_long_is_given_up(png):
    workers = Workers(1, seconds=8, capacity=64)
    hung, fine = run(lambda: workers._run(time.sleep, 600), lambda: workers.thumbnail(png(1)))
    assert isinstance(hung, ImageError) and "longer than 8 s" in str(hung)
    assert isinstance(fine, tuple) and fine[0] == "image/png"
    workers.close()


@pytest.mark.parametrize(
    "content",
    [b"", b"GIF89a", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%PDF-1.7", bytes(99)],
)
def test_what_is_no_image_is_refused_with_a_reason(workers, content):
    (error,) = run(lambda: workers.decode(content, DECODING))
    assert isinstance(error, ImageError) and str(error)


def test_past_the_capacity_an_image_is_refused_at_once(png):
    workers = Workers(1, seconds=30, capacity=1)
    accepted, refused = run(lambda: workers.thumbnail(png(1)), lambda: workers.thumbnail(png(2)))
    assert accepted[0] == "image/png" and isinstance(refused, OverloadedError)
    (later,) = run(lambda: workers.thumbnail(png(2)))
    assert later[0] == "image/png"
    workers.close()


def test_a_client_that_leaves_does_not_end_the_process_that_decodes_for_it(png):
    workers = Workers(1, seconds=30, capacity=8)

    async def leave():
        before = await workers._run(os.getpid)
        leaving = asyncio.create_task(workers._run(time.sleep, 2))
        await asyncio.sleep(0.5)
        leaving.cancel()
        return before, await workers._run(os.getpid)

    before, after = asyncio.run(leave())
    assert before == after
    workers.close()
