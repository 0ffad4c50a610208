"""A remote file onto the disk: in parallel ranges, resumed after a cut or a kill, and checked."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from irgen.catalog.sources.remote import DamagedError, Remote, check
from irgen.catalog.sources.retry import Patience, TransientError
from irgen.errors import SourceError
from irgen.files import digest

PIECE = 8 << 20  # bytes; what a kill loses, times the connections
BLOCK = 1 << 20


class _GoneError(Exception):
    """The file has vanished under our hands."""


def fetch(remote: Remote, path: Path, *, connections: int, retries: int) -> bool:
    """Writes the file to ``path``, whole and checked or not at all; False: it has gone.

    Beside ``path`` a hidden partial file and the list of its finished pieces wait for the next try
    of the same state. Raises ReplacedError, and SourceError if nothing helps or the bytes are
    wrong.
    """
    state = digest(remote.url, remote.etag, remote.size)[:12]
    partial = path.with_name(f".{path.name}.{state}.part")
    pieces = partial.with_suffix(".pieces")
    path.parent.mkdir(parents=True, exist_ok=True)
    for stray in path.parent.glob(f".{path.name}.*.p*"):
        if not remote.etag or stray not in (partial, pieces):
            stray.unlink(missing_ok=True)
    try:
        with tqdm(
            desc=path.name, total=remote.size, unit="B", unit_scale=True, disable=None
        ) as bar:
            if remote.ranged and remote.size:
                _parallel(remote, partial, pieces, bar, connections, retries)
            else:
                _plain(remote, partial, bar, retries)
    except _GoneError:
        partial.unlink(missing_ok=True)
        pieces.unlink(missing_ok=True)
        return False
    try:
        check(_content(partial), remote.sums)
    except DamagedError as error:
        partial.unlink()
        raise SourceError(f"{remote.url} has arrived damaged: {error}; run again") from None
    finally:
        pieces.unlink(missing_ok=True)
    partial.replace(path)
    return True


def _content(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            yield block


def _parallel(
    remote: Remote, partial: Path, pieces: Path, bar: tqdm, connections: int, retries: int
) -> None:
    """Fetches the pieces that are not there yet; a byte of ``pieces`` for each says whether."""
    assert remote.size is not None
    count = -(-remote.size // PIECE)
    there = partial.is_file() and pieces.is_file() and pieces.stat().st_size == count
    done = pieces.read_bytes() if there else bytes(count)
    with (
        partial.open("r+b" if there else "wb") as file,
        pieces.open("r+b" if there else "wb") as log,
    ):
        file.truncate(remote.size)
        log.truncate(count)
        bar.update(sum(min(PIECE, remote.size - n * PIECE) for n in range(count) if done[n]))

        def bring(number: int) -> None:
            start = number * PIECE
            stop = min(start + PIECE, remote.size or 0)
            _piece(remote, file.fileno(), start, stop, Patience(remote.url, retries), bar)
            os.pwrite(log.fileno(), b"\1", number)

        pool = ThreadPoolExecutor(connections, thread_name_prefix="fetch")
        try:
            for future in [pool.submit(bring, n) for n in range(count) if not done[n]]:
                future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _piece(remote: Remote, file: int, start: int, stop: int, patience: Patience, bar: tqdm) -> None:
    at = start
    while at < stop:
        try:
            answer = remote.open(at, stop)
            if answer is None:
                raise _GoneError
            for block in answer.blocks:
                if at + len(block) > stop:
                    raise TransientError("more bytes arrive than were asked for")
                at += os.pwrite(file, block, at)
                bar.update(len(block))
                patience.progressed()
            if at < stop:
                raise TransientError(f"{at - start:,} of {stop - start:,} bytes arrived")
        except TransientError as error:
            patience.failed(error)


def _plain(remote: Remote, partial: Path, bar: tqdm, retries: int) -> None:
    """From a server that gives no ranges: all in one go, or from the start again."""
    patience = Patience(remote.url, retries)
    while True:
        bar.reset()
        try:
            answer = remote.open(0, remote.size)
            if answer is None:
                raise _GoneError
            with partial.open("wb") as file:
                for block in answer.blocks:
                    file.write(block)
                    bar.update(len(block))
                arrived = file.tell()
            if remote.size in (None, arrived):
                return
            raise TransientError(f"{arrived:,} of {remote.size:,} bytes arrived")
        except TransientError as error:
            patience.failed(error)
