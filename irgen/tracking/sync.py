"""Sync run logs to MLflow: live beside a running stage, or later when the server answers again.

One sync process serves a project. The first stage of a build starts it, the next ones find it
running, and it ends when it had nothing to do for a while.
"""

import sys
import time
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from irgen.errors import TrackingError
from irgen.tracking import locations, mlflow_store, run_log, runs

POLL_SECONDS = 0.2
LIVE_SECONDS = 2.0  # between two batches of a live run
LOCK_SECONDS = 0.5  # to wait for another sync process that is just ending


def sync_all(root: Path) -> int:
    """Sync every run log that MLflow lacks, oldest first; return how many are complete now.

    Skip run logs that are still written: the sync process beside the stage does those. Raise
    TrackingError if MLflow does not answer; a run log that it refuses is reported and skipped.
    """
    count = 0
    for path in run_log.list_unsynced(locations.run_logs(root)):
        try:
            count += not run_log.has_writer(path) and sync_run_log(root, path, live=False)
        except mlflow_store.RefusedError as error:
            print(f"tracking: {path} is skipped: {error}", file=sys.stderr)
    return count


def sync_run_log(root: Path, path: Path, *, live: bool) -> bool:
    """Send what MLflow lacks of a run log; return whether that completes it.

    ``live``: more records can come. If not, a run log without an end is one of a killed stage; one
    without metrics makes no run. Raise TrackingError.
    """
    with mlflow_store.open_client(root) as client:
        try:
            records = run_log.read(path)
        except FileNotFoundError:  # the stage had nothing to log
            return False
        if run_log.read_state(path)["done"]:
            return False
        if all(record["kind"] == "begin" for record in records):
            if not live:
                run_log.write_state(path, done=True)
            return False
        try:
            return runs.replay(client, root, path, records, live=live)
        except Exception as error:
            if getattr(error, "error_code", "") != "RESOURCE_DOES_NOT_EXIST":
                raise
            run_log.write_state(path, done=False)  # the store was replaced by an empty one
            return runs.replay(client, root, path, records, live=live)


def watch(root: Path, linger: float) -> None:
    """Sync run logs as they grow until none came for ``linger`` seconds. Return at once if another
    process does it."""
    seen: set[Path] = set()
    while True:
        try:
            lock = FileLock(locations.sync_lock(root)).acquire(timeout=LOCK_SECONDS)
        except Timeout:
            return
        with lock:
            _Watcher(root, seen).run(linger)
        if seen.issuperset(run_log.list_unsynced(locations.run_logs(root))):
            return  # else a stage that saw the lock held has started no process


class _Watcher:
    """The run logs that a sync process has seen, and those that it failed to sync, live or ended.
    One that failed is tried again when it ends and when another run log begins."""

    def __init__(self, root: Path, seen: set[Path]) -> None:
        self.root, self.seen = root, seen
        self.failed: set[tuple[Path, bool]] = set()  # with whether it was open
        self.next_batch: dict[Path, float] = {}  # when an open one is due

    def run(self, linger: float) -> None:
        end = time.monotonic() + linger
        while time.monotonic() < end:
            for path in self._list_own():
                is_open = run_log.is_open(path)
                is_due = not is_open or time.monotonic() >= self.next_batch.get(path, 0)
                is_due = is_due and (path, is_open) not in self.failed
                if is_due:
                    self._sync(path, is_open)
                if is_due or is_open:
                    end = time.monotonic() + linger
            time.sleep(min(POLL_SECONDS, linger))

    def _list_own(self) -> list[Path]:
        """Return the unsynced run logs that are meant for this store, or whose writer is gone."""
        unsynced = run_log.list_unsynced(locations.run_logs(self.root))
        if not self.seen.issuperset(unsynced):
            self.failed.clear()
            self.seen.update(unsynced)
        return [path for path in unsynced if self._is_own(path)]

    def _is_own(self, path: Path) -> bool:
        with suppress(FileNotFoundError):
            if not run_log.has_writer(path):
                return True
            records = run_log.read(path)
            return bool(records) and records[0].get("store") == locations.store_key(self.root)
        return False

    def _sync(self, path: Path, is_open: bool) -> None:
        try:
            sync_run_log(self.root, path, live=is_open)
        except TrackingError as error:
            is_refused = isinstance(error, mlflow_store.RefusedError)
            for other in [path] if is_refused else [path, *self._list_own()]:
                self.failed.add((other, run_log.is_open(other)))
                _report(other, error)
            self.failed.add((path, is_open))
        self.next_batch[path] = time.monotonic() + LIVE_SECONDS


def _report(path: Path, error: TrackingError) -> None:
    """Leave the error for the stage to print, and tell a stage that has ended not to wait."""
    with suppress(OSError):
        if not run_log.is_open(path):
            run_log.write_state(path, **run_log.read_state(path) | {"failed": True})
        with run_log.error_path(path).open("x") as file:
            file.write(str(error))
