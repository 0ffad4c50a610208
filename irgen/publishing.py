"""Journals go to the tracking store: live beside a running stage, or later once it answers."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from irgen import journal, tracking
from irgen.errors import TrackingError

if TYPE_CHECKING:
    from mlflow import MlflowClient

LOCK_SECONDS = 30.0  # for the one publisher that may talk to the store at a time
POLL_SECONDS = 0.2
LIVE_SECONDS = 2.0  # between two batches of a live run


def publish_all(home: Path, *, but: Path | None = None) -> int:
    """Publishes every journal that is not yet, oldest first, and returns how many were.

    A journal still being written is left to its own publisher. Raises TrackingError when the store
    does not answer; a journal that the store refuses is reported and passed over.
    """
    place = home / ".cache" / "tracking"
    waiting = [path for path in journal.unpublished(place) if path != but]
    waiting = [path for path in waiting if not journal.being_written(path)]
    if not waiting:
        return 0
    client = _connect(home)
    done = 0
    for path in waiting:
        try:
            done += publish(path, client, home, live=False)
        except tracking.RefusedError as error:
            print(f"tracking: {path} is passed over: {error}", file=sys.stderr)
    return done


def follow(path: Path, home: Path) -> bool:
    """Publishes a journal as it grows, to its end; returns whether all of it was published.

    The first failure is told in one line, once a build, and the next attempt waits for the end.
    """
    try:
        publish_all(home, but=path)
        client = _connect(home)
        _follow_live(path, client, home)
        return True
    except TrackingError as error:
        _warn_once(path.parent / "warned", error)
    while _open(path):
        time.sleep(POLL_SECONDS)
    with suppress(TrackingError):
        publish(path, _connect(home), home, live=False)
        return True
    return False


def _follow_live(path: Path, client: "MlflowClient", home: Path) -> None:
    due = 0.0
    while _open(path):
        if time.monotonic() >= due:
            publish(path, client, home, live=True)
            due = time.monotonic() + LIVE_SECONDS
        time.sleep(POLL_SECONDS)
    publish(path, client, home, live=False)


def _open(path: Path) -> bool:
    """Whether more records may come."""
    with suppress(FileNotFoundError):
        if not journal.being_written(path):
            return False
        found = journal.records(path)
        return not found or found[-1]["kind"] != "end"
    return False


def publish(path: Path, client: "MlflowClient", home: Path, *, live: bool) -> bool:
    """Brings the store up to date with one journal; returns whether it is now wholly published.

    ``live``: more may come. If not, a journal without an end is that of a killed run; one that
    never got to a metric makes no run. Raises TrackingError.
    """
    with _one_at_a_time(home):
        try:
            found = journal.records(path)
        except FileNotFoundError:  # a run that turned out to have nothing to tell
            return False
        if journal.state(path)["done"]:
            return False
        if all(record["kind"] == "begin" for record in found):
            if not live:
                journal.set_state(path, done=True)
            return False
        try:
            return tracking.replay(path, found, client, home, live=live)
        except Exception as error:
            if getattr(error, "error_code", "") != "RESOURCE_DOES_NOT_EXIST":
                raise
            journal.set_state(path, done=False)  # the store was replaced by an empty one
            return tracking.replay(path, found, client, home, live=live)


def _warn_once(marker: Path, error: TrackingError) -> None:
    with suppress(OSError):
        try:
            marker.touch(exist_ok=False)
        except FileExistsError:
            return
    later = "the run goes on and is logged later (by the next run, or irgen publish)"
    print(f"tracking: {error}; {later}", file=sys.stderr, flush=True)


def _connect(home: Path) -> "MlflowClient":
    with _one_at_a_time(home):  # the first to come makes the tables of a new store
        return tracking.connect(home)


@contextmanager
def _one_at_a_time(home: Path) -> Iterator[None]:
    """Alone with the store; whatever goes wrong there comes out as TrackingError."""
    with journal.locked(home / ".cache" / "tracking" / "lock", seconds=LOCK_SECONDS) as mine:
        if not mine:
            raise TrackingError("another process has been publishing for long")
        try:
            yield
        except Exception as error:  # drivers of stores raise what they like
            raise tracking.failure(error, home) from error
