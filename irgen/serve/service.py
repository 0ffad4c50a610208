"""Serve API and page: search by images and ids, and read items and pictures."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from irgen.catalog.pictures import Pictures
from irgen.errors import ImageError
from irgen.files.workspace import Workspace
from irgen.index.filters import allowed_rows, check_sql
from irgen.index.index import Index
from irgen.index.view import View
from irgen.search.engine import Options
from irgen.serve import query
from irgen.serve.batching import Batcher, Timing
from irgen.serve.champion import Champion, Served
from irgen.serve.facets import Facet, list_facets, read_filter
from irgen.serve.file_cache import FileCache
from irgen.serve.measurements import Measurements
from irgen.serve.problems import NotFoundError, NotReadyError
from irgen.serve.query import Hit, Method, Query
from irgen.serve.schema import SearchOptions
from irgen.serve.workers import Workers

log = logging.getLogger("irgen.serve")
THUMBNAIL_BYTES, UPLOAD_BYTES = 1_000_000_000, 200_000_000  # kept on the disk
LOOK_SECONDS = 1.0  # between looks for a new champion
PATIENCE = 10  # times as long as a try to open one took that failed, until the next
OWN = {"beams", "candidates", "fresh_beams", "rerank", "distinct", "min_score", "min_probability"}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds of the service: ``bytes`` of a request, ``seconds`` for one request and for decoding
    one image, images ``waiting`` for a decoder, queries for the model, and queries in one
    ``batch``."""

    bytes: int = 20_000_000
    seconds: float = 30.0
    decode_seconds: float = 10.0
    waiting: int = 256
    batch: int = 32


@dataclass(frozen=True)
class SearchResults:
    """Hits of each query, the index that answered, and seconds of decoding and of the batches."""

    served: Served
    hits: list[list[Hit]]
    decode_seconds: float
    timings: list[Timing]


class Service:
    """Everything that requests share. ``run`` it while requests are answered."""

    def __init__(self, root: Path, champion: Champion, limits: Limits, *, decoders: int) -> None:
        self.champion, self.limits = champion, limits
        self.pictures = Pictures(root)
        cache = Workspace.at(root).cache / "serve"
        self.thumbnails = FileCache(cache / "thumbnails", THUMBNAIL_BYTES)
        self.uploads = FileCache(cache / "uploads", UPLOAD_BYTES)
        self.workers = Workers(decoders, limits.decode_seconds, limits.waiting)
        self.measurements = Measurements()
        self.batcher: Batcher[Query, list[Hit]] = Batcher(
            query.answer, largest=limits.batch, capacity=limits.waiting
        )
        self.measurements.waiting.set_function(lambda: len(self.batcher))
        self._facets: tuple[View, list[Facet]] | None = None
        self.on_swap: Callable[[Served], Any] = lambda served: None
        self._follower: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to follow the champion and to answer."""
        self.batcher.start()
        self._follower = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        """Answer what waits, then end."""
        if self._follower is not None:
            self._follower.cancel()
        await self.batcher.stop()
        self.workers.close()

    async def _follow(self) -> None:
        while True:
            started = time.perf_counter()
            try:
                await asyncio.to_thread(self._look)
            except Exception:  # a fault of ours must not end the following
                log.exception("the served index could not be looked for")
            failed = PATIENCE * (time.perf_counter() - started) if self.champion.error else 0
            await asyncio.sleep(max(LOOK_SECONDS, failed))

    def _look(self) -> None:
        swapped = self.champion.look()
        if self.champion.served is None:
            return
        if swapped:
            self.measurements.swaps.inc()
            self.measurements.version.set(self.champion.served.version or 0)
            self.on_swap(self.champion.served)
        self.measurements.images.set(len(self.champion.served.index))

    def require_served(self) -> Served:
        """Return the index that is served. Raise NotReadyError if there is none yet."""
        if self.champion.served is None:
            raise NotReadyError(self.champion.error or "it is being opened")
        return self.champion.served

    async def search(
        self,
        inputs: Sequence[bytes | str],
        wanted: SearchOptions,
        method: Method = "served",
        facets: Mapping[str, str] | None = None,
    ) -> SearchResults:
        """Search by image files and ids of the index, mixed; ``method`` concerns images.

        ``facets``: fields of the page that filter (see ``irgen.serve.facets``), beside
        ``wanted.filter``. Raise ImageError for an image that cannot be decoded, IndexingError for
        options or ids that do not fit, OverloadedError, or TimeoutError.
        """
        async with asyncio.timeout(self.limits.seconds):
            return await self._search(inputs, wanted, method, facets)

    async def _search(
        self,
        inputs: Sequence[bytes | str],
        wanted: SearchOptions,
        method: Method,
        facets: Mapping[str, str] | None,
    ) -> SearchResults:
        served = self.require_served()
        index, k = served.index, wanted.offset + wanted.k
        options = make_options(index.options(k), wanted)
        if wanted.filter or facets:
            allow = await asyncio.to_thread(self._filter, index, wanted.filter, facets)
            options = replace(options, allow=allow)
        if method == "retriever":
            options = replace(options, rerank=False)
        started = time.perf_counter()
        pixels = await self._decode(served, inputs)
        decode_seconds = time.perf_counter() - started
        queries = [
            Query(
                index=index,
                pixels=image,
                id=value if isinstance(value, str) else None,
                k=k,
                method=method,
                options=replace(options, beams=max(options.beams, k + (image is None))),
                key=f"{id(index)} {image is None} {method} {k} {options}",
            )
            for value, image in zip(inputs, pixels, strict=True)
        ]
        answers = await self.batcher.ask_all(queries, self.limits.seconds)
        timings = [timing for _, timing in answers]
        results = SearchResults(served, [hits for hits, _ in answers], decode_seconds, timings)
        self._measure(results)
        return results

    def list_facets(self) -> list[Facet]:
        """Return the columns that the page can filter by; they are looked up once a view."""
        served = self.champion.served
        if served is None:
            return []
        view = served.index.view
        if self._facets is None or self._facets[0] is not view:
            self._facets = (view, list_facets(view))
        return self._facets[1]

    def _filter(
        self, index: Index, sql: str | None, values: Mapping[str, str] | None
    ) -> str | None:
        """Return the filters as one, evaluated here: a slow one stops no other search."""
        allow = self._combine_filters(sql, values)
        index.refresh()
        index.snapshot(index.view, allow)  # the index remembers it
        return allow

    def _combine_filters(self, sql: str | None, values: Mapping[str, str] | None) -> str | None:
        """Return a filter and the page's fields that filter as one. Raise IndexingError if either
        cannot be read."""
        fields = read_filter(self.list_facets(), values) if values else None
        parts = [part for part in (sql and check_sql(sql), fields) if part]
        return " AND ".join(f"({part}\n)" for part in parts) or None

    async def _decode(self, served: Served, inputs: Sequence[bytes | str]) -> list[Any]:
        """Return the pixels of each image file, None for each id."""
        decoding = served.index.models.decoding
        jobs = [
            self.workers.decode(value, decoding) if isinstance(value, bytes) else _nothing()
            for value in inputs
        ]
        return await asyncio.gather(*jobs)

    def _measure(self, results: SearchResults) -> None:
        measure, first = self.measurements, results.timings[0]
        measure.stage_seconds.labels("decode").observe(results.decode_seconds)
        measure.stage_seconds.labels("queue").observe(first.queued)
        measure.stage_seconds.labels("search").observe(first.worked)
        measure.batch.observe(first.batch)
        measure.queries.inc(len(results.hits))
        for hits in results.hits:
            if hits:
                measure.scores.observe(hits[0].score)
            else:
                measure.empty.inc()

    def list_items(
        self,
        *,
        ids: Sequence[str] = (),
        filter: str | None = None,
        facets: Mapping[str, str] | None = None,
        offset: int = 0,
        limit: int,
    ) -> tuple[int, list[dict[str, Any]]]:
        """Return the number of images that match, and id and metadata of one page of them. It may
        take long: call it in a thread. Raise
        IndexingError for a filter that fails, NotFoundError for an id that is not in the index."""
        index = self.require_served().index
        index.refresh()
        view = index.view
        if ids:
            rows = view.find(list(ids))
            if (rows < 0).any():
                missing = [name for name, row in zip(ids, rows, strict=True) if row < 0]
                raise NotFoundError(f"not in the index: {', '.join(map(repr, missing[:3]))}")
        elif (allow := self._combine_filters(filter, facets)) is not None:
            rows = allowed_rows(allow, view).nonzero()[:, 0].numpy()
        else:
            rows = view.snapshot.alive_rows().numpy()
        return len(rows), view.take(rows[offset : offset + limit]).rows(named=True)

    async def read_picture(self, name: str) -> bytes:
        """Return the file of an image of the index. Raise NotFoundError if it is not here."""
        item = await self._find_item(name)
        content = await asyncio.to_thread(self.pictures.read, item)
        if content is None:
            raise NotFoundError(
                f"the file of {name!r} is not here: pictures come from data/download of the "
                "project, or from where irgen add read them"
            )
        return content

    async def draw_item(self, name: str) -> tuple[str, bytes]:
        """Return media type and bytes of the thumbnail of an image of the index: made once. Raise
        NotFoundError if its file is not here, or cannot be decoded."""
        sha256 = (await self._find_item(name)).get("sha256")
        if sha256 and (content := await asyncio.to_thread(self.thumbnails.get, sha256)) is not None:
            return content.partition(b" ")[0].decode(), content.partition(b" ")[2]
        try:
            kind, content = await self.workers.thumbnail(await self.read_picture(name))
        except ImageError as error:
            raise NotFoundError(f"there is no picture of {name!r}: {error}") from None
        if sha256:
            await asyncio.to_thread(self.thumbnails.put, sha256, kind.encode() + b" " + content)
        return kind, content

    async def _find_item(self, name: str) -> dict[str, Any]:
        _, (item,) = await asyncio.to_thread(self.list_items, ids=[name], limit=1)
        return item


async def _nothing() -> None:
    return None


def make_options(own: Options, wanted: SearchOptions) -> Options:
    """Return the index's ``own`` options with those that a request names, but for its filter."""
    given = {name: getattr(wanted, name) for name in OWN}
    return replace(own, **{name: value for name, value in given.items() if value is not None})
