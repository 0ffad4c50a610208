"""Journals go to the tracking store: live beside a running stage, or later once it answers.

One publisher serves a project: the first stage of a build starts it, the following ones find it
running, and it leaves when there has been nothing to do for a while.
"""

import sys
import time
from contextlib import suppress
from pathlib import Path

from irgen.errors import TrackingError
from irgen.tracking import mlflow_store, provenance, run_log, runs

POLL_SECONDS = 0.2
STANDSTILL_SECONDS = 15.0  # after which a publisher is not waited for any longer
LIVE_SECONDS = 2.0  # between two batches of a live run


def publish_all(home: Path) -> int:
    """Publishes every journal that is not yet, oldest first, and returns how many were.

    A publisher that is at it is left to do it, as long as it gets on. A journal still being written
    is left to the publisher beside it. Raises TrackingError when the store does not answer; a
    journal that the store refuses is reported and passed over.
    """
    before = _left_behind(home)
    waiting = _left_by_the_publisher(home, before)
    done = len(before) - len(waiting)
    if not waiting:
        return done
    client = _connect(home)
    for path in waiting:
        try:
            done += publish(path, client, home, live=False)
        except mlflow_store.RefusedError as error:
            print(f"tracking: {path} is passed over: {error}", file=sys.stderr)
    return done


def _left_behind(home: Path) -> list[Path]:
    """The journals that are to be published and that nobody writes any more."""
    found = run_log.unpublished(provenance.journals(home))
    return [path for path in found if not run_log.being_written(path)]


def _left_by_the_publisher(home: Path, waiting: list[Path]) -> list[Path]:
    """What is still ``waiting`` once the publisher, which has MLflow loaded and may be half through
    with it, has done what it can: it is gone, has given one up, or got nowhere for a while."""
    until, lock = time.monotonic() + STANDSTILL_SECONDS, provenance.publisher_lock(home)
    while waiting and time.monotonic() < until and run_log.is_held(lock):
        if any(run_log.state(path).get("gave_up") for path in waiting):
            break
        time.sleep(POLL_SECONDS / 4)
        left = [path for path in waiting if not run_log.state(path)["done"]]
        if len(left) < len(waiting):
            until = time.monotonic() + STANDSTILL_SECONDS
        waiting = left
    return waiting


def watch(home: Path, linger: float) -> None:
    """Publishes journals as they grow until none has come for ``linger`` seconds; returns at once
    if another publisher is at it."""
    seen: set[Path] = set()
    place = provenance.journals(home)
    while True:
        with run_log.locked(provenance.publisher_lock(home), seconds=0.5) as mine:
            if not mine:
                return
            _Watcher(home, seen).serve(linger)
        if seen.issuperset(run_log.unpublished(place)):  # else one came that saw the lock held
            return


class _Watcher:
    """What a publisher knows of its journals: which it has met, and which it failed to publish,
    live or ended; such a one gets another attempt when it ends, and when another journal begins."""

    def __init__(self, home: Path, seen: set[Path]) -> None:
        self.home, self.seen = home, seen
        self.client: mlflow_store.MlflowClient | None = None
        self.failed: set[tuple[Path, bool]] = set()
        self.due: dict[Path, float] = {}

    def serve(self, linger: float) -> None:
        until = time.monotonic() + linger
        while time.monotonic() < until:
            for path in self._mine():
                if is_open(path):
                    until = time.monotonic() + linger
                if self._ripe(path):
                    self._attempt(path)
                    until = time.monotonic() + linger
            time.sleep(min(POLL_SECONDS, linger))

    def _mine(self) -> list[Path]:
        """The unpublished journals meant for this store, or left behind by anyone."""
        found = run_log.unpublished(provenance.journals(self.home))
        if not self.seen.issuperset(found):
            self.failed.clear()
            self.seen.update(found)
        place = provenance.store_key(self.home)
        return [path for path in found if _is_for(path, place)]

    def _ripe(self, path: Path) -> bool:
        live = is_open(path)
        if (path, live) in self.failed:
            return False
        return not live or time.monotonic() >= self.due.get(path, 0)

    def _attempt(self, path: Path) -> None:
        live = is_open(path)
        try:
            self.client = self.client or _connect(self.home)
            publish(path, self.client, self.home, live=live)
        except TrackingError as error:
            others = [path] if isinstance(error, mlflow_store.RefusedError) else self._mine()
            for other in others:
                self.failed.add((other, is_open(other)))
                _note_trouble(other, error)
            if not live:
                self.failed.add((path, False))
        self.due[path] = time.monotonic() + LIVE_SECONDS


def is_open(path: Path) -> bool:
    """Whether more records may come: no end yet, and a writer alive."""
    with suppress(FileNotFoundError):
        if not run_log.being_written(path):
            return False
        found = run_log.records(path)
        return not found or found[-1]["kind"] != "end"
    return False


def _is_for(path: Path, place: str) -> bool:
    with suppress(FileNotFoundError):
        if not run_log.being_written(path):
            return True
        found = run_log.records(path)
        return bool(found) and found[0].get("store") == place
    return False


def _note_trouble(path: Path, error: TrackingError) -> None:
    """Leaves word for the stage: once a build to be told, and that an ended journal must wait."""
    with suppress(OSError):
        if not is_open(path):
            run_log.set_state(path, **run_log.state(path) | {"gave_up": True})
        with (path.parent / "trouble").open("x") as file:
            file.write(str(error))


def publish(path: Path, client: "mlflow_store.MlflowClient", home: Path, *, live: bool) -> bool:
    """Brings the store up to date with one journal; returns whether it is now wholly published.

    ``live``: more may come. If not, a journal without an end is that of a killed run; one that
    never got to a metric makes no run. Raises TrackingError.
    """
    with mlflow_store.alone(home):
        try:
            found = run_log.records(path)
        except FileNotFoundError:  # a run that turned out to have nothing to tell
            return False
        if run_log.state(path)["done"]:
            return False
        if all(record["kind"] == "begin" for record in found):
            if not live:
                run_log.set_state(path, done=True)
            return False
        try:
            return runs.replay(path, found, client, home, live=live)
        except Exception as error:
            if getattr(error, "error_code", "") != "RESOURCE_DOES_NOT_EXIST":
                raise
            run_log.set_state(path, done=False)  # the store was replaced by an empty one
            return runs.replay(path, found, client, home, live=live)


def _connect(home: Path) -> "mlflow_store.MlflowClient":
    mlflow_store.load(home)
    with mlflow_store.alone(home):  # the first to come makes the tables of a new store
        return mlflow_store.connect(home)
