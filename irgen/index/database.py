"""SQLite file of an index: which base counts, and which images changed since it was written.

``state`` has one row: the ``base``'s number, and the ``owner``, a digest of the index and the base
that the file belongs to. ``changes`` has one row per image added, replaced or removed since, at its
latest change; of a removed image, ``code``, ``embedding`` and ``metadata`` are null. Changes are
numbered in order. A transaction is one change of the index: a reader sees all of it or nothing.

SQLite drops the end of a damaged write-ahead log in silence. So the number of the latest change
that was reported as done is in a second file, too, and a lower one in SQLite's is an error.
"""

import os
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import numpy as np

from irgen.errors import IndexingError
from irgen.index import damage, metadata
from irgen.index.rows import Rows

NAME = "changes.sqlite"
REPORTED = "reported"  # holds the number of the latest change that was reported, and its checksum
SYNCHRONOUS = "FULL"  # a commit has reached the disk
SCHEMA = """
CREATE TABLE state (base INTEGER NOT NULL, owner TEXT NOT NULL);
CREATE TABLE changes (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    key INTEGER NOT NULL UNIQUE,
    id TEXT NOT NULL,
    code BLOB,
    embedding BLOB,
    metadata TEXT,
    checksum INTEGER NOT NULL
);
"""
LEAST = -(2**63)  # of SQLite's integers
READ_STATE = """
SELECT base, owner, (SELECT max(seq) FROM sqlite_sequence WHERE name = 'changes') FROM state
"""


class Change(NamedTuple):
    """Latest change of one image; of a removed one, code, embedding and metadata are None."""

    key: int
    id: str
    code: bytes | None
    embedding: bytes | None
    metadata: str | None
    checksum: int


@dataclass(frozen=True)
class State:
    """Current state: the base that counts, its ``owner``, and the number of the latest change (0
    before the first)."""

    base: int
    owner: str
    revision: int


def create(folder: Path, base: int, owner: str) -> None:
    """Write the file of an index without changes into ``folder``."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as memory:
        memory.executescript(SCHEMA)
        memory.execute("INSERT INTO state VALUES (?, ?)", (base, owner))
        (folder / NAME).write_bytes(memory.serialize())


class Database:
    """An open SQLite file, for reading or, if ``writable``, for the one writer. Threads may share
    it. Every method raises IndexingError, naming the file, if it is missing or damaged."""

    def __init__(self, folder: Path, *, writable: bool = False):
        self.path, self._writable, self._lock = folder / NAME, writable, Lock()
        self._connection = self._connect()
        self.inode = self.path.stat().st_ino
        self._refuse_loss()
        # a writer also relies on the index of keys
        self._check("integrity_check" if writable else "quick_check")

    def close(self) -> None:
        """Close the file. Closing twice does no harm. A writer that nobody reads beside leaves no
        other file than this one, so that the folder may be read where nothing can be written."""
        with suppress(sqlite3.Error):
            if self._writable:
                self._connection.execute("PRAGMA busy_timeout = 0")
                self._connection.execute("PRAGMA journal_mode = DELETE")
        self._connection.close()

    def size(self) -> int:
        """Return the bytes on the disk, the write-ahead log included."""
        files = (self.path, self.path.with_name(f"{NAME}-wal"))
        return sum(file.stat().st_size for file in files if file.exists())

    def state(self) -> State:
        """Return the committed state."""
        with self._reading() as connection:
            return _read_state(connection)

    def read(self, after: int) -> tuple[State, list[Change]]:
        """Return the committed state, and what changed after the change number ``after``."""
        with self._reading() as connection, connection:
            connection.execute("BEGIN")
            state = _read_state(connection)
            query = "SELECT number, key, id, code, embedding, metadata, checksum FROM changes"
            first = after + 1 if after else LEAST  # a damaged number is no reason to leave one out
            rows = connection.execute(f"{query} WHERE number >= ? ORDER BY number", (first,))
            numbered = [(row[0], Change._make(row[1:])) for row in rows]
        if not all(_is_whole(number, change) for number, change in numbered):
            raise damage.damaged(self.path, "the checksum of a change differs")
        return state, [change for _, change in numbered]

    def find(self, keys: Iterable[int]) -> dict[int, str | None]:
        """Return which of ``keys`` changed, with their ids, or None for those that were removed."""
        query = "SELECT id, code IS NOT NULL FROM changes WHERE key = ?"
        with self._reading() as connection:
            rows = ((key, connection.execute(query, (key,)).fetchone()) for key in keys)
            return {key: row[0] if row[1] else None for key, row in rows if row is not None}

    def count_changes(self) -> int:
        """Return the number of changes since the oldest one that still counts: at least that of
        the images that have changed. Time: two look-ups."""
        query = "SELECT (SELECT max(number) FROM changes) - (SELECT min(number) FROM changes) + 1"
        with self._reading() as connection:
            return connection.execute(query).fetchone()[0] or 0

    def put(self, rows: Rows) -> None:
        """Add images, or replace those with the same key; committed when this returns. Raise
        IndexingError, having changed nothing, if the disk is full."""
        vectors = rows.embeddings.half().numpy()
        columns = (
            *(rows.keys.tolist(), rows.table[metadata.ID].to_list()),
            *([values.tobytes() for values in array] for array in (rows.codes.numpy(), vectors)),
            metadata.to_json(rows.table),
        )
        self._write(zip(*columns, strict=True))

    def remove(self, ids: Sequence[str], keys: np.ndarray) -> None:
        """Remove images. Otherwise as ``put``."""
        removed = zip(keys.tolist(), ids, strict=True)
        self._write((key, name, None, None, None) for key, name in removed)

    def _write(self, changes: Iterable[tuple]) -> None:
        columns = "(number, key, id, code, embedding, metadata, checksum)"
        with self._committing(f"writing to {self.path}") as connection:
            first = _read_state(connection).revision + 1
            connection.executemany(
                f"INSERT OR REPLACE INTO changes {columns} VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    (number, *values, _sum(*values) ^ number)
                    for number, values in enumerate(changes, first)
                ),
            )
        self._report()

    def _report(self) -> None:
        """Note the number of the latest change. If the disk is full, the note before stays."""
        number = f"{self.state().revision:020d}"
        with suppress(OSError):
            file = os.open(self.path.with_name(REPORTED), os.O_WRONLY | os.O_CREAT, 0o666)
            try:
                os.write(file, f"{number} {zlib.crc32(number.encode()):08x}\n".encode())
            finally:
                os.close(file)

    def _read_reported(self) -> int:
        """Return the number that ``_report`` noted; 0 without a note that is whole."""
        try:
            text = self.path.with_name(REPORTED).read_text("ascii", "replace")
        except OSError:
            return 0
        number, _, total = text.strip().partition(" ")
        return int(number) if number and total == f"{zlib.crc32(number.encode()):08x}" else 0

    def _refuse_loss(self) -> None:
        """Raise IndexingError if a change that was reported as done is not there."""
        reported, revision = self._read_reported(), self.state().revision
        reported = min(reported, self._read_reported())  # the folder may just have been replaced
        if revision < reported:
            path = self.path.with_name(REPORTED)
            raise damage.damaged(
                self.path,
                f"of {reported:,} changes the last {reported - revision:,} are lost; to go on "
                f"without them, delete {path}",
            )

    def switch(self, state: State) -> None:
        """Make the base of ``state`` the one that counts, and delete the changes that it includes,
        up to its revision. Raise IndexingError, having changed nothing, if the disk is full."""
        with self._committing(f"compacting {self.path.parent}") as connection:
            connection.execute("UPDATE state SET base = ?, owner = ?", (state.base, state.owner))
            connection.execute("DELETE FROM changes WHERE number <= ?", (state.revision,))
        with suppress(sqlite3.Error), self._lock:  # it only makes the file small
            self._connection.execute("VACUUM")
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def verify(self) -> None:
        """Check the whole file."""
        self._check("integrity_check")

    def _check(self, pragma: str) -> None:
        with self._reading() as connection:
            (message,) = connection.execute(f"PRAGMA {pragma}(1)").fetchone()
        if message != "ok":
            raise damage.damaged(self.path, message)

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            if self._writable and self._process != os.getpid():
                raise IndexingError(
                    f"{self.path.parent} was opened by process {self._process}, of which this is a "
                    "fork: only that process may change it"
                )
            if self._is_outdated():
                self._outdated, self._connection = self._connection, self._connect()
            with self._explaining():
                yield self._connection

    @contextmanager
    def _committing(self, action: str) -> Iterator[sqlite3.Connection]:
        try:
            with self._lock, self._connection:  # commits, or rolls back
                self._connection.execute("PRAGMA journal_mode = WAL")  # readers need not wait
                self._connection.execute("BEGIN IMMEDIATE")
                yield self._connection
        except sqlite3.OperationalError as error:
            raise damage.failed(action, str(error)) from error
        except sqlite3.DatabaseError as error:
            raise damage.damaged(self.path, error) from error

    @contextmanager
    def _explaining(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, UnicodeDecodeError) as error:  # a damaged name of a table or column
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_CANTOPEN:
                damage.check_readable(self.path)
            raise damage.damaged(self.path, error) from error

    def _is_outdated(self) -> bool:
        """Tell whether the connection is another process's, of which this one is a fork, or takes
        for granted that nobody writes although somebody does."""
        return self._process != os.getpid() or (self._immutable and self._has_log())

    def _connect(self) -> sqlite3.Connection:
        self._process, self._immutable = os.getpid(), False
        if not self.path.exists():
            raise IndexingError(f"{self.path} is missing: {damage.REMEDY}")
        with self._explaining():
            if not self._writable:
                return self._connect_to_read()
            connection = self._open("mode=rw")
            connection.execute(f"PRAGMA synchronous = {SYNCHRONOUS}")
            _read_state(connection)
            return connection

    def _connect_to_read(self) -> sqlite3.Connection:
        if self.path.with_name(f"{NAME}-journal").exists():  # of a writer killed as it opened it
            with closing(self._open("mode=rw")) as connection:
                _read_state(connection)  # rolls back
        connection = self._open("mode=ro")
        try:
            _read_state(connection)
        except sqlite3.OperationalError:
            connection.close()
            if self._has_log():
                raise
            self._immutable = True  # in a folder that cannot be written
            connection = self._open("mode=ro&immutable=1")
        return connection

    def _has_log(self) -> bool:
        log = self.path.with_name(f"{NAME}-wal")
        return log.exists() and log.stat().st_size > 0

    def _open(self, options: str) -> sqlite3.Connection:
        address = f"{self.path.absolute().as_uri()}?{options}"
        return sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False)


def _read_state(connection: sqlite3.Connection) -> State:
    row = connection.execute(READ_STATE).fetchone()
    if row is None:
        raise sqlite3.DatabaseError("it does not say which base counts")
    return State(row[0], row[1], row[2] or 0)


def _is_whole(number: int, change: Change) -> bool:
    """Tell whether a change has its checksum; one of an older version does not cover the number."""
    return change.checksum ^ _sum(*change[:-1]) in (number, 0)


def _sum(
    key: int, name: str, code: bytes | None, embedding: bytes | None, columns: str | None
) -> int:
    """Return the checksum of a change."""
    total = zlib.crc32(f"{key} {name} {columns}".encode())
    return zlib.crc32(embedding or b"", zlib.crc32(code or b"", total))
