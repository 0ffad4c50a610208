"""Receive the bytes of a remote file: whole, resumed after a cut connection, and checked."""

import hashlib
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from irgen.catalog.sources.remote import (
    DamagedError,
    GoneError,
    Remote,
    TransientError,
    retry_call,
)
from irgen.errors import SourceError
from irgen.files.digests import digest

DAMAGE_RETRIES = 3  # how often damaged content is fetched again
PIECE = 8 << 20  # bytes of a parallel range; a kill loses one a connection
BLOCK = 1 << 20


class Body(NamedTuple):
    """Bytes of a file, whole and checked, and their version in a versioned store."""

    content: bytes
    version: str | None


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
