"""Add, replace and remove images of the served index: answered once the change is on the disk.

Image files are decoded by the processes that also decode queries, then kept in ``uploads/``,
encoded by the served index's models, and committed together with what other clients send meanwhile.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from irgen.catalog.uploads import FOLDER, store_upload
from irgen.errors import ImageError, LockedError
from irgen.index import damage
from irgen.index.decoded_image import DecodedImage, add_file_columns
from irgen.index.index import Index
from irgen.index.metadata import complete
from irgen.index.rows import check_ids
from irgen.index.user_columns import fit_rows
from irgen.serve.batching import Batcher, answer_in_groups
from irgen.serve.champion import Champion, Served
from irgen.serve.content import changes
from irgen.serve.content.changes import Addition, Changed, Removal
from irgen.serve.content.turns import LOOK_SECONDS, Turns
from irgen.serve.errors import OutdatedError, OverloadedError
from irgen.serve.measurements import Measurements
from irgen.serve.workers import Workers

log = logging.getLogger("irgen.serve")
MOST_TOGETHER = 16  # requests in one commit
MOST_DECODED = 4  # images decoded at once: searches find a decoder, too
SWAP_SECONDS = 0.2  # between tries while the served index is swapped

Change = Addition | Removal


@dataclass(frozen=True)
class NewImage:
    """An image to add: its ``id``, the ``content`` and the ``path`` of its file, and values of
    ``metadata`` columns."""

    id: str
    content: bytes
    path: str
    metadata: dict[str, Any]


class Writer:
    """Changes of the index of ``champion``, between ``start`` and ``stop``. ``open_writer``: see
    ``Turns``. ``follow`` makes the champion the index that is there now, if it is another one.
    ``seconds``: until a change must have begun. ``capacity``: images that may wait."""

    def __init__(
        self,
        root: Path,
        champion: Champion,
        workers: Workers,
        measurements: Measurements,
        *,
        open_writer: Callable[[float], Index],
        follow: Callable[[], Awaitable[None]],
        seconds: float,
        capacity: int,
    ) -> None:
        self._root, self._champion, self._workers = root, champion, workers
        self._measurements, self._follow = measurements, follow
        self._seconds, self._capacity, self._waiting = seconds, capacity, 0
        self._turns = Turns(open_writer)
        self._batcher: Batcher[Change, Changed] = Batcher(
            self._change, largest=MOST_TOGETHER, capacity=capacity
        )
        self._decoding = asyncio.Semaphore(MOST_DECODED)
        self._watch: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """Return the number of images that wait."""
        return self._waiting

    def start(self) -> None:
        """Begin to take changes; call it in the event loop."""
        self._batcher.start()
        self._watch = asyncio.create_task(self._end_turns())

    async def stop(self) -> None:
        """Make the changes that wait, then end."""
        await self._batcher.stop()
        if self._watch is not None:
            self._watch.cancel()
        await asyncio.to_thread(self._turns.close)

    async def add(self, images: Sequence[NewImage], *, replace: bool) -> Changed:
        """Add images, all or none; with ``replace``, instead of those with the same ids.

        Raise ImageError, naming the file, for one that cannot be decoded; IdTakenError or another
        IndexingError for what does not fit the index; WriteFailedError for a full disk;
        LockedError or OutdatedError if the index could not be had in time; OverloadedError.
        """
        check_ids([image.id for image in images])
        deadline = time.monotonic() + self._seconds
        with self._admit(len(images)):
            while True:
                addition = await self._prepare(images, replace, deadline)
                try:
                    return await self._submit(addition, "upsert" if replace else "add")
                except OutdatedError:
                    await self._await_swap(addition.served, deadline)

    async def remove(self, ids: Sequence[str]) -> Changed:
        """Remove images, all or none. Raise IdUnknownError if one is not in the index; otherwise as
        ``add``."""
        removal = Removal(ids=check_ids(ids), deadline=time.monotonic() + self._seconds)
        with self._admit(1):  # it holds no image
            return await self._submit(removal, "remove")

    async def _await_swap(self, served: Served, deadline: float) -> None:
        """Return once another index is served. Raise OutdatedError at the deadline."""
        while self._champion.served is served:
            if time.monotonic() > deadline:
                raise OutdatedError
            await asyncio.sleep(SWAP_SECONDS)

    @contextmanager
    def _admit(self, count: int) -> Iterator[None]:
        if self._waiting + count > self._capacity:
            raise OverloadedError(1.0)
        self._waiting += count
        try:
            yield
        finally:
            self._waiting -= count

    async def _prepare(
        self, images: Sequence[NewImage], replace: bool, deadline: float
    ) -> Addition:
        """Decode images and keep their files."""
        served, started = self._champion.require(), time.perf_counter()
        table = fit_rows([image.metadata for image in images], served.index.schema, "items")
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                decoded = [self._decode(image, served) for image in images]
                pictures = await asyncio.gather(*decoded)
        except TimeoutError:
            raise OverloadedError(1.0) from None
        await asyncio.to_thread(self._store, images)
        seconds = time.perf_counter() - started
        self._measurements.write_seconds.labels("decode").observe(seconds)
        return _make_addition(served, images, pictures, table, replace, deadline)

    async def _decode(self, image: NewImage, served: Served) -> DecodedImage:
        async with self._decoding:
            try:
                return await self._workers.picture(image.content, served.index.models.decoding)
            except ImageError as error:
                raise ImageError(f"{image.path}: {error}") from None

    def _store(self, images: Sequence[NewImage]) -> None:
        with damage.writing(f"keeping image files in {FOLDER}"):
            for image in images:
                store_upload(self._root, image.content)

    async def _submit(self, change: Change, action: str) -> Changed:
        """Return the outcome of a change, once searches here find it, too."""
        [(changed, timing)] = await self._batcher.ask([change])
        measure = self._measurements
        measure.writes.labels(action).inc(len(change.ids))
        measure.write_seconds.labels("queue").observe(timing.queued)
        measure.write_seconds.labels("write").observe(timing.worked)
        await self._follow()
        return changed

    def _change(self, batch: Sequence[Change]) -> list[Changed | Exception]:
        return answer_in_groups(batch, lambda change: change.key, self._change_group)

    def _change_group(self, group: Sequence[Change]) -> Sequence[Changed | Exception]:
        """Make changes of one key in one turn; those that fail together, each alone. Encode before
        the turn: others may use the time."""
        additions = [change for change in group if isinstance(change, Addition)]
        removals = [change for change in group if isinstance(change, Removal)]
        encoded = changes.encode(additions) if additions else []
        wait = min(change.deadline for change in group) - time.monotonic()
        try:
            with self._turns.take(wait) as index:
                added = answer_in_groups(encoded, lambda _: "", partial(changes.add, index))
                removed = answer_in_groups(removals, lambda _: "", partial(changes.remove, index))
                return added + removed  # one of them is empty
        except LockedError as error:
            return [error] * len(group)  # they would have no more luck alone

    async def _end_turns(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if self._turns.is_open:
                try:
                    await asyncio.to_thread(self._turns.end_if_due)
                except Exception:  # a fault of ours must not keep everybody else from the index
                    log.exception("a turn at the index could not be ended")


def _make_addition(
    served: Served,
    images: Sequence[NewImage],
    pictures: Sequence[DecodedImage],
    table: pl.DataFrame,
    replace: bool,
    deadline: float,
) -> Addition:
    schema, paths = served.index.schema, [image.path for image in images]
    columns = add_file_columns(table, paths, pictures, schema)
    return Addition(
        served=served,
        ids=[image.id for image in images],
        pixels=np.stack([picture.pixels for picture in pictures]),
        metadata=complete(columns, len(images), schema),
        replace=replace,
        deadline=deadline,
    )
