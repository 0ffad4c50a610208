"""Decode images of strangers in processes of their own: one that dies, hangs or eats memory harms
no other request."""

import asyncio
import logging
import multiprocessing
import os
import resource
import sys
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from typing import Any, TypeVar

import numpy as np
from pebble import ProcessExpired, ProcessPool

from irgen.catalog.images.decode import decode
from irgen.catalog.images.pixels import Decoding, square
from irgen.catalog.thumbnails import SIDE, encode_thumbnail
from irgen.errors import ImageError
from irgen.index.decoded_image import DecodedImage, decode_image
from irgen.serve.errors import OverloadedError

log = logging.getLogger("irgen.serve")
Result = TypeVar("Result")
TRIES = 3  # of an image while all processes are killed again and again
MEMORY_BYTES = 3 << 30  # of address space a worker, libraries included


class Workers:
    """Processes that decode. ``seconds``: longest time for one image. ``capacity``: images that may
    wait; past it OverloadedError is raised."""

    def __init__(self, count: int, seconds: float, capacity: int) -> None:
        self._seconds, self._capacity, self._waiting = seconds, capacity, 0
        self._count = count
        self._pool = _make_pool(count)

    async def warm(self) -> None:
        """Start all processes, so that the first images need not wait for them."""
        await asyncio.gather(*(self._run(os.getpid) for _ in range(self._count)))

    async def decode(self, content: bytes, decoding: Decoding) -> np.ndarray:
        """Return the pixels (C, size, size) uint8 of an image file. Raise ImageError if it cannot
        be decoded within the limits of time and memory."""
        return await self._run(_decode, content, decoding)

    async def picture(self, content: bytes, decoding: Decoding) -> DecodedImage:
        """Return the picture in an image file, to be added. Raise ImageError as ``decode`` does."""
        return await self._run(decode_image, content, decoding)

    async def thumbnail(self, content: bytes) -> tuple[str, bytes]:
        """Return media type and bytes of a small picture of an image file. Raise ImageError as
        ``decode`` does."""
        return await self._run(_make_thumbnail, content)

    async def _run(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Return the result of a process. Repeat if all processes were killed at once, since this
        image is probably not why."""
        if self._waiting >= self._capacity:
            raise OverloadedError(1.0)
        self._waiting += 1
        try:
            for _ in range(TRIES):
                with suppress(BrokenProcessPool):
                    return await self._try(function, arguments)
            raise OverloadedError(1.0)
        finally:
            self._waiting -= 1

    async def _try(self, function: Callable[..., Result], arguments: Sequence[Any]) -> Result:
        if not self._pool.active:  # all were killed, or one while it held the lock of all
            log.error("the processes that decode are started again")
            self._pool.stop()
            self._pool = _make_pool(self._count)
        future = self._pool.schedule(function, args=list(arguments), timeout=self._seconds)
        try:
            return await asyncio.shield(asyncio.wrap_future(future))
        except asyncio.CancelledError:
            if not future.running():  # else its process would be killed, and started again
                future.cancel()
            raise
        except TimeoutError:
            raise ImageError(
                f"it takes longer than {self._seconds:g} s to decode: send a smaller copy"
            ) from None
        except (ProcessExpired, MemoryError):
            raise ImageError("decoding needs too much memory: send a smaller copy") from None

    def close(self) -> None:
        """End the processes."""
        self._pool.stop()
        self._pool.join()


def _make_pool(count: int) -> ProcessPool:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])  # imported once, not by every process
    return ProcessPool(
        max_workers=count,
        max_tasks=10_000,  # then a fresh process: what a library leaks goes with the old one
        initializer=_isolate,
        context=context,
    )


def _isolate() -> None:
    """Limit the memory of this process. Drop what libraries print about damaged files: it would
    stand between the lines of the log."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def _decode(content: bytes, decoding: Decoding) -> np.ndarray:
    return square(decode(content, decoding.channels, decoding.short), decoding)


def _make_thumbnail(content: bytes) -> tuple[str, bytes]:
    return encode_thumbnail(decode(content, 3, SIDE))
