"""Change the index in turns: its one writer's lock is held for a moment and given back, so that the
command line and other services can change the index, too."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock

from irgen.index import folder
from irgen.index.index import Index

LONGEST_SECONDS = 5.0  # of a turn while changes go on arriving
LEAST_OPENINGS = 3  # times that opening the index took: of a turn for whose end somebody waits
IDLE_SECONDS = 0.5  # after the last change, until a turn ends
LOOK_SECONDS = 0.05  # between looks whether it is to end
PAUSE_SECONDS = 0.15  # after a turn, for whoever waits: longer than between two of their tries


class Turns:
    """Turns at one index. ``open_writer`` opens it for changes and waits at most the given seconds
    for another writer; it raises LockedError if that one goes on. Threads may share it."""

    def __init__(self, open_writer: Callable[[float], Index]) -> None:
        self._open_writer, self._using = open_writer, Lock()
        self._index: Index | None = None
        self._began = self._used = self._earliest = 0.0
        self._opening = LONGEST_SECONDS  # of the shortest one so far

    @property
    def is_open(self) -> bool:
        """Tell whether a turn goes on."""
        return self._index is not None

    @contextmanager
    def take(self, wait: float) -> Iterator[Index]:
        """Yield the index for changes, in the turn that goes on or in a new one. Raise LockedError
        if another writer still has the index after ``wait`` seconds. An error in the block ends the
        turn."""
        with self._using:
            if self._index is not None and self._index.is_gone:  # somebody deleted it
                self._end()
            index = self._begin(wait) if self._index is None else self._index  # it may be empty
            try:
                yield index
            except BaseException:
                self._end()
                raise
            self._used = time.monotonic()
            self._end_if_due(index)

    def end_if_due(self) -> None:
        """End the turn if nothing was changed for a while, or if somebody else waits."""
        if self._index is None or not self._using.acquire(blocking=False):
            return
        try:
            if self._index is not None:
                self._end_if_due(self._index)
        finally:
            self._using.release()

    def _end_if_due(self, index: Index) -> None:
        now = time.monotonic()
        length = now - self._began
        is_worth_opening = length >= LEAST_OPENINGS * self._opening
        is_awaited = is_worth_opening and folder.is_awaited(index.folder.path)
        if is_awaited or length >= LONGEST_SECONDS:
            self._end()
            self._earliest = now + PAUSE_SECONDS
        elif now - self._used >= IDLE_SECONDS:
            self._end()

    def close(self) -> None:
        """End the turn."""
        with self._using:
            self._end()

    def _begin(self, wait: float) -> Index:
        time.sleep(max(0.0, self._earliest - time.monotonic()))
        started = time.monotonic()
        self._index = self._open_writer(max(0.0, wait))
        self._began = self._used = time.monotonic()
        self._opening = min(self._opening, self._began - started)  # others waited, too
        return self._index

    def _end(self) -> None:
        index, self._index = self._index, None
        if index is not None:
            index.close()
