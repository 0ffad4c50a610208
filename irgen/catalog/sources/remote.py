"""Read a remote file over any protocol: whole, resumed after a cut connection, and checked."""

import hashlib
import os
import random
import re
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial as bind
from pathlib import Path
from typing import NamedTuple, TypeVar

from tqdm import tqdm

from irgen.catalog.failures import Outage
from irgen.catalog.sources.listing import Entry, Fetched, refuse
from irgen.errors import GivenUpError, SourceError, UnreachableError, UnreadableError, redact
from irgen.files.digests import digest

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10  # seconds between two tries; the pause doubles
DAMAGE_RETRIES = 3  # how often damaged content is fetched again
STATES = 4  # how often a file may be replaced while it is read
PIECE = 8 << 20  # bytes of a parallel range; a kill loses one a connection
BLOCK = 1 << 20
GZIP = b"\x1f\x8b"  # how a file packed by gzip begins
MOST_UNPACKED = 1 << 30  # bytes

T = TypeVar("T")


class TransientError(Exception):
    """A connection failed, but another try may succeed."""


class DisconnectedError(TransientError):
    """No connection to the server can be made."""


class DamagedError(Exception):
    """All bytes have arrived, but their checksum is wrong."""


class ReplacedError(Exception):
    """A file has changed since it was listed."""


class GoneError(Exception):
    """A file is no longer there."""


class Answer(NamedTuple):
    """A server's answer: `blocks` raises TransientError if the connection is cut, DamagedError if a
    checksum of the protocol is wrong. `sums`: checksums of the whole file, hex by algorithm."""

    blocks: Iterator[bytes]
    version: str | None = None
    sums: dict[str, str] = {}  # noqa: RUF012


class Body(NamedTuple):
    """Bytes of a file, whole and checked, and their version in a versioned store."""

    content: bytes
    version: str | None


@dataclass(frozen=True, kw_only=True)
class Remote:
    """One state of a remote file. Equal etags and sizes: the same state; etag "": unknown.

    `open(start, stop)` requests the bytes from `start` to before `stop` (None: the end); `start` is
    0 unless `ranged`. It raises GoneError or ReplacedError if the file is not in this state,
    TransientError for an answer that another try may mend, SourceError for any other failure.
    """

    url: str
    size: int | None
    etag: str
    ranged: bool
    open: Callable[[int, int | None], Answer] = field(repr=False)
    version: str | None = None
    sums: dict[str, str] = field(default_factory=dict)

    @property
    def state(self) -> str | None:
        """Return the file's etag for a manifest; None if its server gives none."""
        return f"{self.etag}-{self.size}" if self.etag else None


Look = Callable[[], Remote | None]


def retry_call(
    call: Callable[[], T], url: str, retries: int, kind: type[Exception] = TransientError
) -> T:
    """Return `call()`, tried again after a pause while it raises an error of this kind.

    Raises GivenUpError when all tries have failed, UnreachableError if there is no server.
    """
    failures = 0
    while True:
        try:
            return call()
        except kind as error:
            failures += 1
            if failures > retries:
                lost = isinstance(error, DisconnectedError)
                kind_raised = UnreachableError if lost else GivenUpError
                raise make_retry_error(url, failures, str(error), kind_raised) from None
            time.sleep(random.uniform(0, min(FIRST_PAUSE * 2.0 ** (failures - 1), LONGEST_PAUSE)))


def make_retry_error(
    url: str, tries: int, reason: str, kind: type[SourceError] = GivenUpError
) -> SourceError:
    """Return the error after the last try has failed."""
    return kind(
        f"{url}: given up after {tries} tries ({redact(reason)}); run again when the service "
        "works: what has arrived is kept"
    )


def refuse_untrusted(url: str, error: Exception, variable: str) -> None:
    """Raise UnreachableError if the server's certificate is not trusted, since another try would
    fail, too. ``variable``: environment variable that names trusted ones."""
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        raise UnreachableError(
            f"{url}: the server's certificate is not trusted ({flatten(error)}); set {variable} to "
            "a file with the certificate of its authority"
        ) from None


def flatten(error: Exception) -> str:
    """Return an error's text in one line, without secrets and addresses in memory.

    >>> flatten(ValueError("<http.Connection object at 0x7f12>: with url: /a.jpg?sig=1 (refused)"))
    'with url: /a.jpg?*** (refused)'
    """
    text = re.sub(r"<[\w.]+ object at 0x[0-9a-f]+>:? ?", "", str(error))
    text = re.sub(r"(with url: [^\s?]*)\?\S*", r"\1?***", text)
    return redact(" ".join(text.split()))[:300]


def use_present(look: Look, use: Callable[[Remote], T]) -> T | None:
    """Return `use(remote)` for the file's present state; repeat if it is replaced meanwhile.

    None: there is no file, or no longer. Raises UnreadableError if it is replaced again and again.
    """
    for _ in range(STATES):
        remote = look()
        if remote is None:
            return None
        with suppress(ReplacedError):
            try:
                return use(remote)
            except GoneError:
                return None
    assert remote is not None, "it was there at every look"
    raise UnreadableError(
        f"{remote.url} was replaced {STATES} times while it was read; run again when it is stable"
    )


def read(remote: Remote, retries: int, most: int | None = None) -> Body:
    """Return the bytes of the file, or the first of them, `most` at most. Raises GoneError,
    ReplacedError, or SourceError."""
    is_part = most is not None and (remote.size is None or remote.size > most)

    def attempt() -> Body:
        content = bytearray()

        def write(block: bytes, start: int) -> None:
            content[start:] = block

        stop = most if is_part else remote.size
        version, sums = _receive(remote, 0, stop, write, retries)
        check([bytes(content)], {} if is_part else sums)
        return Body(bytes(content), version)

    return retry_call(attempt, remote.url, min(DAMAGE_RETRIES, retries), DamagedError)


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
    read = bind(location.read, file, location.look)
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


def fetch(remote: Remote, path: Path, *, connections: int, retries: int) -> None:
    """Write the file to `path`, whole and checked or not at all.

    It comes in parallel ranges if the server gives ranges. A hidden partial file and the list of
    its finished pieces stay beside `path` for the next try of the same state. Raises GoneError,
    ReplacedError, or SourceError.
    """
    state = digest(remote.url, remote.etag, remote.size)[:12]
    partial = path.with_name(f".{path.name}.{state}.part")
    pieces = partial.with_suffix(".pieces")
    path.parent.mkdir(parents=True, exist_ok=True)
    for stray in path.parent.glob(f".{path.name}.*.p*"):
        if not remote.etag or stray not in (partial, pieces):
            stray.unlink(missing_ok=True)
    try:
        _fetch_pieces(remote, partial, pieces, connections, retries)
        check(_blocks_of(partial), remote.sums)
    except GoneError:
        partial.unlink(missing_ok=True)
        pieces.unlink(missing_ok=True)
        raise
    except DamagedError as error:
        partial.unlink()
        pieces.unlink()
        raise SourceError(f"{remote.url} has arrived damaged: {error}; run again") from None
    pieces.unlink()
    partial.replace(path)


def _blocks_of(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            yield block


def _fetch_pieces(
    remote: Remote, partial: Path, pieces: Path, connections: int, retries: int
) -> None:
    """Fetch the missing pieces; the file `pieces` has a byte for each, 1 if it is there."""
    name, size = remote.url.rpartition("/")[2], remote.size
    starts = range(0, size, PIECE) if remote.ranged and size else range(1)
    resumed = partial.is_file() and pieces.is_file() and pieces.stat().st_size == len(starts)
    done = pieces.read_bytes() if resumed else bytes(len(starts))
    mode = "r+b" if resumed else "wb"
    with (
        partial.open(mode) as file,
        pieces.open(mode) as log,
        ThreadPoolExecutor(connections, thread_name_prefix="fetch") as pool,
        tqdm(desc=name, total=size, unit="B", unit_scale=True, disable=None) as bar,
    ):
        log.truncate(len(starts))

        def write(block: bytes, start: int) -> None:
            os.pwrite(file.fileno(), block, start)
            if not remote.ranged:  # what a longer try before has left
                file.truncate(start + len(block))
            bar.update(len(block))

        def fetch_piece(number: int) -> None:
            stop = min(starts[number] + PIECE, size) if remote.ranged and size else size
            _receive(remote, starts[number], stop, write, retries)
            os.pwrite(log.fileno(), b"\1", number)

        try:
            for future in [pool.submit(fetch_piece, n) for n in range(len(starts)) if not done[n]]:
                future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _receive(
    remote: Remote,
    start: int,
    stop: int | None,
    write: Callable[[bytes, int], None],
    retries: int,
) -> tuple[str | None, dict[str, str]]:
    """Pass the bytes from `start` to `stop` to `write(block, position)`; return version and sums.

    A cut connection is resumed where it broke, or from the start if the server gives no ranges. A
    try that brings something does not count as failed.
    """
    position, version, sums = start, remote.version, dict(remote.sums)

    def advance() -> bool:
        """Write what one connection brings; return whether that was all."""
        nonlocal position, version
        position = first = position if remote.ranged else start
        try:
            answer = remote.open(position, stop)
            version = answer.version or version
            sums.update(answer.sums)
            for block in answer.blocks:
                write(block, position)
                position += len(block)
        except TransientError:
            if not remote.ranged or position == first:
                raise
        if stop is None or position == stop:
            return True
        if remote.ranged and first < position < stop:
            return False
        kind = TransientError if position < stop else DamagedError
        raise kind(f"{position - start:,} of {stop - start:,} bytes arrived")

    while not retry_call(advance, remote.url, retries):
        pass
    return version, sums


def check(blocks: Iterable[bytes], sums: dict[str, str]) -> None:
    """Raise DamagedError unless the content has the checksums `sums`: hex by algorithm, md5, sha1,
    sha256 or crc32."""
    hashes = {name: hashlib.new(name) for name in sums if name != "crc32"}
    crc = 0
    for block in blocks:
        for algorithm in hashes.values():
            algorithm.update(block)
        crc = zlib.crc32(block, crc) if "crc32" in sums else crc
    actual = {name: algorithm.hexdigest() for name, algorithm in hashes.items()}
    actual["crc32"] = f"{crc:08x}"
    for name, expected in sums.items():
        if actual[name] != expected.lower():
            raise DamagedError(f"its {name} is {actual[name]} instead of {expected}")
