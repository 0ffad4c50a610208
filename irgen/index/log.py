"""The write-ahead log of one generation: what was acknowledged since, record by record.

The file begins with a magic word, its version and 16 bytes that tell its generation, the ``owner``,
from every other. A record is a header – a mark, the payload's length and CRC, the header CRC of the
record before, its own CRC – and the payload. Records are chained through the header CRCs, so that a
reader who goes on from where it stopped sees at once if what it has read was taken back.

What a crash can leave at the end was never acknowledged and is passed over: a record that reaches
past the end of the file, or whose bytes are wrong with nothing behind them. Anything else that is
wrong is damage, and refused.
"""

import os
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from irgen.errors import IndexingError
from irgen.index import disk

MAGIC, VERSION, MARK = b"irgenlog", 1, b"\xa9rec"
START = struct.Struct("<8sI16sI")  # magic, version, owner, CRC of these
HEAD = struct.Struct("<4sQIII")  # mark, length, CRC of the payload, the header before, this header


class Position(NamedTuple):
    """A place between two records: where in the file, the header CRC of the record before, and
    where that header is."""

    offset: int
    chain: int
    last: int


def beginning(owner: bytes) -> Position:
    """The position before the first record."""
    return Position(START.size, zlib.crc32(START.pack(MAGIC, VERSION, owner, 0)[:-4]), 0)


def contents(owner: bytes, payloads: Iterable[bytes] = ()) -> tuple[bytes, Position]:
    """The bytes of a log that holds ``payloads``, and the position at its end."""
    position = beginning(owner)
    parts = [START.pack(MAGIC, VERSION, owner, position.chain)]
    for payload in payloads:
        record, position = _record(payload, position)
        parts.append(record)
    return b"".join(parts), position


def read(path: Path, owner: bytes, after: Position | None = None) -> tuple[list[bytes], Position]:
    """The payloads that follow ``after`` (None: all of them), and the position behind the last.

    A torn tail is passed over. Raises IndexingError, naming file and offset, for a log that is
    missing, damaged, another generation's or a newer version's, or that no longer holds what was
    read up to ``after``.
    """
    after = after or beginning(owner)
    try:
        with path.open("rb") as file:
            start = file.read(START.size)
            file.seek(after.last)
            before = _unpack(file.read(HEAD.size), 0)
            file.seek(after.offset)
            data = file.read()
    except OSError as error:
        raise IndexingError(f"{path} cannot be read ({error.strerror}): {disk.REMEDY}") from None
    _check_start(path, start, owner)
    if after.last and (before is None or before[-1] != after.chain):
        raise disk.damaged(path, f"what was read up to byte {after.offset:,} was taken back")
    return _records(path, data, after)


def _check_start(path: Path, start: bytes, owner: bytes) -> None:
    if len(start) < START.size:
        raise disk.damaged(path, "it has no header")
    magic, version, found, chain = START.unpack(start)
    if magic != MAGIC or chain != zlib.crc32(start[:-4]):
        raise disk.damaged(path, "its header is wrong")
    if version > VERSION:
        raise IndexingError(f"{path} was written by a newer irgen (log version {version}): update")
    if found != owner:
        raise disk.damaged(path, "it belongs to another generation")


def _records(path: Path, data: bytes, after: Position) -> tuple[list[bytes], Position]:
    """The payloads in ``data``, which begins at the position ``after``."""
    payloads, position, place = [], after, 0
    while place < len(data):
        where = f"the record at byte {position.offset:,}"
        head = _unpack(data, place)
        if head is None:
            if _any_head(data, place + 1):
                raise disk.damaged(path, where)
            break
        length, crc, before, own = head
        end = place + HEAD.size + length
        if before != position.chain:
            raise disk.damaged(path, f"{where} does not follow the one before")
        if end > len(data):
            break
        payload = data[place + HEAD.size : end]
        if zlib.crc32(payload) != crc:
            if end < len(data):
                raise disk.damaged(path, where)
            break
        payloads.append(payload)
        position = Position(position.offset + end - place, own, position.offset)
        place = end
    return payloads, position


def _record(payload: bytes, after: Position) -> tuple[bytes, Position]:
    """The record of ``payload`` that follows ``after``, and the position behind it."""
    head = HEAD.pack(MARK, len(payload), zlib.crc32(payload), after.chain, 0)[:-4]
    own = zlib.crc32(head)
    record = head + struct.pack("<I", own) + payload
    return record, Position(after.offset + len(record), own, after.offset)


def _unpack(data: bytes, place: int) -> tuple[int, int, int, int] | None:
    """Length, payload CRC, the CRC before and its own of the header at ``place``; None if there is
    no sound one."""
    if place + HEAD.size > len(data):
        return None
    mark, length, crc, before, own = HEAD.unpack_from(data, place)
    if mark != MARK or own != zlib.crc32(data[place : place + HEAD.size - 4]):
        return None
    return length, crc, before, own


def _any_head(data: bytes, place: int) -> bool:
    """Whether a sound header stands anywhere from ``place`` on."""
    while (place := data.find(MARK, place)) >= 0:
        if _unpack(data, place):
            return True
        place += 1
    return False


class Log:
    """A log opened by the one writer. ``position``: its end, behind the last acknowledged record.

    Opening cuts off what stands behind it, a torn tail.
    """

    def __init__(self, path: Path, position: Position):
        self._path, self.position = path, position
        self._file = path.open("r+b", buffering=0)
        self._sound = True
        if os.fstat(self._file.fileno()).st_size > self.position.offset:
            self._cut()

    def append(self, payload: bytes) -> None:
        """Adds a record; it has reached the disk when this returns.

        Raises IndexingError if it cannot be written (the disk is full); the log is then as before.
        Should the disk refuse even that, nothing more can be written until the index is opened
        again.
        """
        if not self._sound:
            raise IndexingError(
                f"{self._path} could not be brought back after a failed write: open the index again"
            )
        record, position = _record(payload, self.position)
        try:
            with disk.full_disk_told(f"writing to {self._path}"):
                self._write(record)
                os.fsync(self._file.fileno())
        except BaseException:
            self._cut()
            raise
        self.position = position

    def _write(self, record: bytes) -> None:
        rest, offset = memoryview(record), self.position.offset
        while rest:
            written = os.pwrite(self._file.fileno(), rest, offset)
            rest, offset = rest[written:], offset + written

    def _cut(self) -> None:
        """Takes back whatever stands behind the last acknowledged record."""
        self._sound = False
        try:
            os.ftruncate(self._file.fileno(), self.position.offset)
            os.fsync(self._file.fileno())
        except OSError:
            return
        self._sound = True

    def close(self) -> None:
        """Gives the file back."""
        self._file.close()
