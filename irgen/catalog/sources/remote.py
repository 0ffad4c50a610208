"""A remote file in one state, over whatever protocol: read whole into memory, resumed where it is
cut, and checked."""

import hashlib
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from irgen.catalog.sources.listing import Fetched
from irgen.catalog.sources.retry import Patience, TransientError
from irgen.errors import SourceError

DAMAGES = 3  # times a damaged content is fetched again
MOVES = 4  # states of a file that is replaced while it is read

T = TypeVar("T")


class DamagedError(TransientError):
    """All bytes are there, and they are not the right ones."""


class ReplacedError(Exception):
    """The file is no longer in the state that was looked at."""


class Answer(NamedTuple):
    """Bytes on their way: ``blocks`` raises TransientError where they are cut, DamagedError if a
    checksum of the protocol is wrong; ``sums`` (hex, by algorithm) are those of the whole file."""

    blocks: Iterator[bytes]
    version: str | None = None
    sums: dict[str, str] = {}  # noqa: RUF012


class Body(NamedTuple):
    """A file's bytes, whole and checked, and the version that its store calls them."""

    content: bytes
    version: str | None


@dataclass(frozen=True, kw_only=True)
class Remote:
    """One state of a remote file; equal etags (of equal sizes): the same state, "": nobody knows.

    ``open(start, stop)`` asks for the bytes from start up to stop (None: the end), from 0 only
    unless ``ranged``. It gives None if the file has gone, and raises ReplacedError if its state has
    changed, TransientError for what may pass, SourceError for what will not.
    """

    url: str
    size: int | None
    etag: str
    ranged: bool
    open: Callable[[int, int | None], Answer | None] = field(repr=False)
    version: str | None = None
    sums: dict[str, str] = field(default_factory=dict)


def steady(look: Callable[[], Remote | None], use: Callable[[Remote], T | None]) -> T | None:
    """What ``use`` makes of the file as it is, looked at again if it is replaced meanwhile; None:
    there is none (any more). Raises SourceError if it never stays the same for long enough."""
    remote = None
    for _ in range(MOVES):
        remote = look()
        if remote is None:
            return None
        try:
            return use(remote)
        except ReplacedError:
            continue
    assert remote is not None, "it was there at every look"
    raise SourceError(
        f"{remote.url} was replaced {MOVES} times while it was read; run again when it rests"
    )


def read(remote: Remote, retries: int) -> Body | None:
    """The bytes of the file; None: it has gone. A cut connection is taken up where it broke, as
    often as something arrives. Raises ReplacedError, and SourceError if nothing helps."""
    damage = Patience(remote.url, min(DAMAGES, retries))
    while True:
        try:
            return _gather(remote, Patience(remote.url, retries))
        except DamagedError as error:
            damage.failed(error)


def read_image(first: Remote, look: Callable[[], Remote | None], retries: int) -> Fetched | None:
    """The bytes of a remote image, first tried in the state that was listed, and then as it is;
    None: it has gone. Raises SourceError."""
    known = [first]

    def bring(found: Remote) -> Fetched | None:
        body = read(found, retries)
        return None if body is None else Fetched(body.content, state(found), body.version)

    return steady(lambda: known.pop() if known else look(), bring)


def state(found: Remote) -> str | None:
    """The etag of a remote file in a manifest; None if its server tells none."""
    return f"{found.etag}-{found.size}" if found.etag else None


def _gather(remote: Remote, patience: Patience) -> Body | None:
    content, sums = bytearray(), dict(remote.sums)
    version, whole = remote.version, False
    while not whole:
        try:
            if not remote.ranged:
                content.clear()
            answer = remote.open(len(content), remote.size)
            if answer is None:
                return None
            version, sums = answer.version or version, sums | answer.sums
            for block in answer.blocks:
                content += block
                if remote.ranged:
                    patience.progressed()
            whole = _is_whole(len(content), remote)
        except DamagedError:
            raise
        except TransientError as error:
            if content and remote.ranged and len(content) == remote.size:
                break  # cut after the last byte
            patience.failed(error)
    check([bytes(content)], sums)
    return Body(bytes(content), version)


def _is_whole(arrived: int, remote: Remote) -> bool:
    if remote.size is not None and arrived != remote.size:
        kind = TransientError if arrived < remote.size else DamagedError
        raise kind(f"{arrived:,} of {remote.size:,} bytes arrived")
    return True


def check(blocks: Iterable[bytes], sums: dict[str, str]) -> None:
    """Raises DamagedError if content has another checksum than one of ``sums``: md5, sha1, sha256
    or crc32 in hex."""
    hashes = {name: hashlib.new(name) for name in sums if name != "crc32"}
    crc = 0
    for block in blocks:
        for one in hashes.values():
            one.update(block)
        crc = zlib.crc32(block, crc) if "crc32" in sums else crc
    found = {name: one.hexdigest() for name, one in hashes.items()} | {"crc32": f"{crc:08x}"}
    for name, wanted in sums.items():
        if found[name] != wanted.lower():
            raise DamagedError(f"its {name} is {found[name]} instead of {wanted}")
