"""Search by images and ids for API and page, and follow the champion meanwhile."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Any

from irgen.compute.machine import return_freed_memory
from irgen.errors import ServiceError
from irgen.files.workspace import Workspace
from irgen.index.index import Index
from irgen.index.text_query import TextQuery
from irgen.search.engine import Options
from irgen.serve import query, running
from irgen.serve.access.fetch import Fetcher
from irgen.serve.api.schema import SearchOptions
from irgen.serve.batching import Batcher
from irgen.serve.candidate import Candidate
from irgen.serve.champion import Champion, Served
from irgen.serve.content.file_cache import FileCache
from irgen.serve.content.items import Items
from irgen.serve.content.state import StateReader
from irgen.serve.content.writer import Writer
from irgen.serve.measurements import Measurements
from irgen.serve.query import Method, Query, QueryHits, QueryInput, SearchResults
from irgen.serve.refresh import Refresh
from irgen.serve.workers import Workers

log = logging.getLogger("irgen.serve")
UPLOAD_BYTES = 200_000_000  # kept on the disk
LOOK_SECONDS = 1.0  # between looks for a new champion
PATIENCE = 10  # times as long as a try to open one took that failed, until the next
OPTION_NAMES = {  # of those that a request may give, but for its filter
    *("beams", "candidates", "fresh_beams", "rerank", "hedge", "distinct", "words"),
    *("min_score", "min_probability"),
}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds of the service. ``bytes``: of a request. ``seconds``: for a request; and
    ``decode_seconds`` for decoding one image. ``waiting``: images that wait for a decoder, and as
    many queries for the model. ``batch``: queries answered together."""

    bytes: int = 20_000_000
    seconds: float = 30.0
    decode_seconds: float = 10.0
    waiting: int = 256
    batch: int = 32


class Service:
    """Share one index, its queue and its decoders among all requests, between ``start`` and
    ``stop``. ``url``: where searches of this machine may ask it; None: they may not. ``fetcher``:
    of pictures by address; None: they are refused. ``open_writer`` opens the index for changes, and
    waits at most the given seconds for another writer; None: nothing is changed. ``refresh`` brings
    the index up to date if another one was released. ``try_out`` returns a candidate that is tried
    on searches; None: there is none."""

    def __init__(
        self,
        root: Path,
        champion: Champion,
        limits: Limits,
        *,
        decoders: int,
        url: str | None = None,
        fetcher: Fetcher | None = None,
        open_writer: Callable[[float], Index] | None = None,
        refresh: Refresh | None = None,
        try_out: Callable[[Measurements], Candidate] | None = None,
    ) -> None:
        self.champion, self.limits = champion, limits
        self._root, self._url, self._fetcher = root, url, fetcher
        self.uploads = FileCache(Workspace.at(root).cache / "serve" / "uploads", UPLOAD_BYTES)
        self.workers = Workers(decoders, limits.decode_seconds, limits.waiting)
        self.items = Items(root, champion, self.workers)
        self.state = StateReader(root)
        self.measurements = Measurements()
        self.candidate = try_out and try_out(self.measurements)
        self.batcher: Batcher[Query, QueryHits] = Batcher(
            query.answer, largest=limits.batch, capacity=limits.waiting
        )
        self.writer = open_writer and Writer(
            root,
            champion,
            self.workers,
            self.measurements,
            open_writer=open_writer,
            follow=self._try_to_look,
            seconds=limits.seconds,
            capacity=limits.waiting,
        )
        self._looking, self._refresh = Lock(), refresh
        self._swapped_before = False  # at the last look
        self._followers: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start the decoders, open the champion, and follow it from now on. If it cannot be opened,
        ``champion.error`` says why, and the service waits for one that can."""
        self.batcher.start()
        if self.writer is not None:
            self.writer.start()
        await asyncio.gather(self.workers.warm(), self._try_to_look())
        self._followers.append(asyncio.create_task(_repeat(self._look, LOOK_SECONDS)))
        if self._refresh is not None:
            follow = _repeat(self._refresh.look, self._refresh.seconds)
            self._followers.append(asyncio.create_task(follow))
        if self.candidate is not None:
            follow = _repeat(self.candidate.look, LOOK_SECONDS)
            self._followers.append(asyncio.create_task(follow))

    async def stop(self) -> None:
        """Answer what waits, then end."""
        for follower in self._followers:
            follower.cancel()
        if self.writer is not None:
            await self.writer.stop()
        running.delete(self._root)
        await self.batcher.stop()
        self.workers.close()
        if self.candidate is not None:
            await _try(self.candidate.look)  # which notes its figures

    @property
    def problem(self) -> str | None:
        """Return why no index or no newer one is served, None if all is well."""
        causes = (self._refresh and self._refresh.error, self.champion.error)
        return "; ".join(cause for cause in causes if cause) or None

    async def _try_to_look(self) -> None:
        await _try(self._look)

    def _look(self) -> bool:
        """Serve the champion if it is another one; return whether it can be opened."""
        self.measurements.waiting.set(len(self.batcher))
        if self.writer is not None:
            self.measurements.waiting_writes.set(len(self.writer))
        with self._looking:
            swapped, served = self.champion.look(), self.champion.served
        if served is None:
            return False
        if self._swapped_before:  # by now the searches in the index before have ended, too
            return_freed_memory()
        self._swapped_before = swapped
        if swapped:
            self.measurements.swaps.inc()
            self.measurements.version.set(served.version or 0)
            if self._url is not None:
                running.note(self._root, self._url, served.state[0])
        self.measurements.images.set(len(served.index))
        return self.champion.error is None

    @property
    def fetches_addresses(self) -> bool:
        """Tell whether pictures may be named by their address."""
        return self._fetcher is not None

    async def fetch(self, urls: Sequence[str]) -> list[bytes]:
        """Return the pictures at these addresses. Raise ServiceError if none are fetched here,
        ImageError if one cannot be had."""
        if not urls:
            return []
        if self._fetcher is None:
            raise ServiceError(
                "this service fetches no picture by its address: send the file, or start it with "
                "irgen serve --fetch"
            )
        return await self._fetcher.fetch_all(urls)

    async def search(
        self,
        inputs: Sequence[QueryInput],
        wanted: SearchOptions,
        method: Method = "served",
        facets: Mapping[str, str] | None = None,
    ) -> SearchResults:
        """Search by images, ids and texts, mixed; ``method`` concerns images.

        ``facets``: fields of the page that filter (see ``irgen.serve.content.facets``), beside
        ``wanted.filter``. Raise ImageError for an image that cannot be decoded, IndexingError for
        options, ids or words that do not fit, OverloadedError, or TimeoutError.
        """

        async def ask(served: Served) -> SearchResults:
            return await self._search(served, inputs, wanted, method, facets)

        async with asyncio.timeout(self.limits.seconds):
            served = self.champion.require()
            if self.candidate is None or method != "served":
                results = await ask(served)
            else:
                results = await self.candidate.search(served, inputs, ask)
        self._measure(inputs, results)
        return results

    async def _search(
        self,
        served: Served,
        inputs: Sequence[QueryInput],
        wanted: SearchOptions,
        method: Method,
        facets: Mapping[str, str] | None,
    ) -> SearchResults:
        index, k = served.index, wanted.offset + wanted.k
        options = _make_options(index.options(k), wanted)
        if wanted.filter or facets or wanted.words is not None:
            allow = await asyncio.to_thread(self._filter, index, wanted, facets)
            options = replace(options, allow=allow)
        if method == "retriever":
            options = replace(options, rerank=False)
        texts = await _read_texts(index, inputs)
        started = time.perf_counter()
        pixels = await self._decode(served, inputs)
        decode_seconds = time.perf_counter() - started
        queries = [
            Query(
                index=index,
                kind=value.kind,
                pixels=image,
                id=value.id,
                text=text,
                k=k,
                method=method,
                options=replace(options, beams=max(options.beams, k + (value.kind == "id"))),
            )
            for value, image, text in zip(inputs, pixels, texts, strict=True)
        ]
        answers = await self.batcher.ask(queries)
        timings = [timing for _, timing in answers]
        return SearchResults(served, [hits for hits, _ in answers], decode_seconds, timings)

    def _filter(
        self, index: Index, wanted: SearchOptions, values: Mapping[str, str] | None
    ) -> str | None:
        """Return the filters as one; it and the words are evaluated here: slow ones stop no other
        search."""
        allow = self.items.combine_filters(wanted.filter, values)
        index.refresh()
        index.snapshot(index.view, allow, wanted.words)  # the index remembers it
        return allow

    async def _decode(self, served: Served, inputs: Sequence[QueryInput]) -> list[Any]:
        """Return the pixels of each image file, None for a query without."""
        decoding = served.index.models.decoding
        jobs = [
            _nothing() if value.image is None else self.workers.decode(value.image, decoding)
            for value in inputs
        ]
        return await asyncio.gather(*jobs)

    def _measure(self, inputs: Sequence[QueryInput], results: SearchResults) -> None:
        measure, first = self.measurements, results.timings[0]
        measure.stage_seconds.labels("decode").observe(results.decode_seconds)
        measure.stage_seconds.labels("queue").observe(first.queued)
        measure.stage_seconds.labels("search").observe(first.worked)
        measure.batch.observe(first.batch)
        for value, result in zip(inputs, results.queries, strict=True):
            in_words = value.kind == "text"
            is_full_text = result.text is not None and result.text.is_full_text
            measure.queries.labels("full_text" if is_full_text else value.kind).inc()
            if not result.hits:
                measure.empty.inc()
            elif not in_words:  # else it is neither a cosine nor a probability
                measure.scores.observe(result.hits[0].score)


async def _repeat(look: Callable[[], bool], seconds: float) -> None:
    """Call ``look`` about every ``seconds``, but later if it failed and took long."""
    while True:
        started = time.perf_counter()
        pause = 0 if await _try(look) else PATIENCE * (time.perf_counter() - started)
        await asyncio.sleep(max(seconds, pause))


async def _try(look: Callable[[], bool]) -> bool:
    try:
        return await asyncio.to_thread(look)
    except Exception:  # a fault of ours must not end the following
        log.exception("looking for a newer index failed")
        return False


async def _read_texts(index: Index, inputs: Sequence[QueryInput]) -> list[TextQuery | None]:
    """Return how each text is read, None for a query without. Words are looked up here: slow
    look-ups stop no other search."""
    texts = [value.text for value in inputs if value.text is not None]
    read = iter(await asyncio.to_thread(index.read_words, texts) if texts else ())
    return [None if value.text is None else next(read) for value in inputs]


async def _nothing() -> None:
    return None


def _make_options(defaults: Options, wanted: SearchOptions) -> Options:
    """Return the index's options with those that a request gives in place of its ``defaults``."""
    given = {name: getattr(wanted, name) for name in OPTION_NAMES}
    chosen = {name: value for name, value in given.items() if value is not None}
    return replace(defaults, trust_copies=True, **chosen)
