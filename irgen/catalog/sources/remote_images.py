"""Look up and read images that lie on servers, one by one."""

import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

from irgen.catalog.failures import Outage
from irgen.catalog.sources.listing import Entry, Fetched, refuse
from irgen.catalog.sources.remote import Look, Remote, use_present
from irgen.catalog.sources.transfer import read
from irgen.errors import UnreadableError

GZIP = b"\x1f\x8b"  # how a file packed by gzip begins
MOST_UNPACKED = 1 << 30  # bytes


class Location(NamedTuple):
    """Location of an image: `look` returns what is there, `read` the bytes of what was there."""

    key: str
    look: Look
    read: Callable[[Remote, Look], Fetched | None]


def look_up_all(locations: Sequence[Location], ahead: int) -> list[Entry]:
    """Return the entry of what is at each location; `ahead` are looked at at once.

    One that cannot be looked at has a problem. Raises SourceError if a server is not there, or if
    many images in a row are given up.
    """
    outage, entries = Outage(), []
    pool = ThreadPoolExecutor(ahead, thread_name_prefix="look")
    try:
        for future in [pool.submit(_look_up, location) for location in locations]:
            entry, error = future.result()
            outage.note(error)
            entries.append(entry)
    finally:
        pool.shutdown(cancel_futures=True)
    return entries


def _look_up(location: Location) -> tuple[Entry, UnreadableError | None]:
    try:
        file = location.look()
    except UnreadableError as error:
        return refuse(location.key, str(error)), error
    if file is None:
        return Entry(location.key, "", None), None
    read = partial(location.read, file, location.look)
    return Entry(location.key, file.state, read), None


def read_image(listed: Remote, look: Look, retries: int) -> Fetched | None:
    """Return the bytes of a remote image, in the state that was listed or else as it is now.

    Some stores keep and send images packed by gzip: those are unpacked. None: it has gone. Raises
    UnreadableError, or another SourceError if its server is not there.
    """
    states = [listed]

    def use(remote: Remote) -> Fetched:
        body = read(remote, retries)
        return Fetched(unpack_gzip(body.content, remote.url), remote.state, body.version)

    return use_present(lambda: states.pop() if states else look(), use)


def unpack_gzip(content: bytes, url: str) -> bytes:
    """Return the content of an image or list without a packing by gzip, as it is if there is none.
    Raises UnreadableError if it is cut off, damaged, or too large."""
    if not content.startswith(GZIP):
        return content
    unpacker = zlib.decompressobj(wbits=31)  # of gzip
    try:
        plain = unpacker.decompress(content, MOST_UNPACKED)
    except zlib.error as error:
        raise UnreadableError(f"{url} is packed by gzip, and damaged ({error})") from None
    if not unpacker.eof:
        raise UnreadableError(
            f"{url} is packed by gzip, and cut off or larger than {MOST_UNPACKED / 1e9:.0f} GB; "
            "store it as it is"
        )
    return plain
