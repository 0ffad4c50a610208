"""Reading a listing's images in its order, several at once where the source allows it."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

from irgen.catalog.sources.listing import Entry, Fetched, Listing

Take = Callable[[], Fetched | None]


def in_turn(listing: Listing, needed: Callable[[Entry], bool]) -> Iterator[tuple[Entry, Take]]:
    """Every entry in order, and what gives its bytes, or None if it has gone; to be called, if at
    all, before the next is drawn.

    Those ``needed`` are read ahead, at most ``listing.ahead`` at once and twice as many waiting.
    """
    if not listing.ahead:
        yield from ((entry, partial(_read, entry)) for entry in listing.entries)
        return
    waiting: deque[tuple[Entry, Future[Fetched | None] | None]] = deque()
    coming = 0
    pool = ThreadPoolExecutor(listing.ahead, thread_name_prefix="read")
    try:
        for entry in listing.entries:
            future = pool.submit(_read, entry) if entry.read and needed(entry) else None
            waiting.append((entry, future))
            coming += future is not None
            while waiting and (waiting[0][1] is None or coming > 2 * listing.ahead):
                coming -= waiting[0][1] is not None
                yield _taken(*waiting.popleft())
        while waiting:
            yield _taken(*waiting.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def _taken(entry: Entry, future: Future[Fetched | None] | None) -> tuple[Entry, Take]:
    return entry, partial(_read, entry) if future is None else future.result


def _read(entry: Entry) -> Fetched | None:
    assert entry.read is not None, "only images that are there are read"
    found = entry.read()
    return Fetched(found, entry.etag, None) if isinstance(found, bytes) else found
