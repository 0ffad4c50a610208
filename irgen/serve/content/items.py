"""Read the images of the served index: list them by filters, find their files, draw them small."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from irgen.catalog.pictures import Pictures
from irgen.errors import ImageError
from irgen.files.workspace import Workspace
from irgen.index.metadata import ID
from irgen.index.sql import check_sql
from irgen.index.view import View
from irgen.serve.champion import Champion
from irgen.serve.content.facets import Facet, list_facets, read_filter
from irgen.serve.content.file_cache import FileCache
from irgen.serve.errors import NotFoundError
from irgen.serve.workers import Workers

THUMBNAIL_BYTES = 1_000_000_000  # kept on the disk


class Items:
    """Images of the index that is served. What may take long is to be called in a thread."""

    def __init__(self, root: Path, champion: Champion, workers: Workers) -> None:
        self._champion, self._workers = champion, workers
        self._pictures = Pictures(root)
        self._thumbnails = FileCache(
            Workspace.at(root).cache / "serve" / "thumbnails", THUMBNAIL_BYTES
        )
        self._facets: tuple[View, list[Facet]] | None = None

    def list_facets(self) -> list[Facet]:
        """Return the columns that the page can filter by; they are looked up once a view."""
        served = self._champion.served
        if served is None:
            return []
        view = served.index.view
        if self._facets is None or self._facets[0] is not view:
            self._facets = (view, list_facets(view))
        return self._facets[1]

    def combine_filters(self, sql: str | None, values: Mapping[str, str] | None) -> str | None:
        """Return a filter and the page's fields that filter as one; None if there is none. Raise
        IndexingError if either cannot be read."""
        fields = read_filter(self.list_facets(), values) if values else None
        parts = [part for part in (sql and check_sql(sql), fields) if part]
        return " AND ".join(f"({part}\n)" for part in parts) or None

    def sample(self, count: int) -> list[dict[str, Any]]:
        """Return id and metadata of some images, from all parts of the index."""
        view = self._champion.require().index.view
        rows = view.snapshot.alive_rows().numpy()
        return view.take(rows[:: max(1, len(rows) // count)][:count]).rows(named=True)

    def list(
        self,
        *,
        ids: Sequence[str] = (),
        filter: str | None = None,
        facets: Mapping[str, str] | None = None,
        words: str | None = None,
        offset: int = 0,
        limit: int,
    ) -> tuple[int, list[dict[str, Any]]]:
        """Return the number of images that match, and id and metadata of one page of them: in order
        of row or, with ``words``, the best match first. Raise IndexingError for a filter or words
        that fail, NotFoundError for an id that is not in the index."""
        index = self._champion.require().index
        index.refresh()
        view = index.view
        if ids:
            rows = view.find(ids)
            if (rows < 0).any():
                missing = [name for name, row in zip(ids, rows, strict=True) if row < 0]
                raise NotFoundError(f"not in the index: {', '.join(map(repr, missing[:3]))}")
        else:
            rows = index.matching_rows(view, self.combine_filters(filter, facets), words)
        return len(rows), view.take(rows[offset : offset + limit]).rows(named=True)

    async def find(self, name: str) -> dict[str, Any]:
        """Return id and metadata of an image of the index. Raise NotFoundError if it has none of
        that id."""
        _, (item,) = await asyncio.to_thread(self.list, ids=[name], limit=1)
        return item

    async def read_picture(self, item: Mapping[str, Any]) -> bytes:
        """Return the file of an image of the index. Raise NotFoundError if it is not here."""
        content = await asyncio.to_thread(self._pictures.read, item)
        if content is None:
            raise NotFoundError(
                f"the file of {item[ID]!r} is not here: pictures come from data/download and "
                "uploads/ of the project, or from where they were read"
            )
        return content

    async def draw(self, item: Mapping[str, Any]) -> tuple[str, bytes]:
        """Return media type and bytes of the thumbnail of an image of the index: made once. Raise
        NotFoundError if its file is not here, or cannot be decoded."""
        sha256 = item.get("sha256")
        if sha256 and (content := await asyncio.to_thread(self._thumbnails.get, sha256)):
            kind, _, content = content.partition(b" ")
            return kind.decode(), content
        try:
            media_type, content = await self._workers.thumbnail(await self.read_picture(item))
        except ImageError as error:
            raise NotFoundError(f"there is no picture of {item[ID]!r}: {error}") from None
        if sha256:
            stored = media_type.encode() + b" " + content
            await asyncio.to_thread(self._thumbnails.put, sha256, stored)
        return media_type, content
