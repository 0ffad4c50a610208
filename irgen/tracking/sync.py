"""Sync run logs to MLflow: live beside a running stage, or later when the server answers again.

One sync process serves a project. The first stage of a build starts it, the next ones use it too,
and it ends after a while without work.
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

    Skip run logs of running stages, which have their own sync process. Raise TrackingError if
    MLflow does not answer; print and skip a run log that it refuses.
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

    ``live``: more records can come. If not, and the run log has no end, its stage was killed. A run
    log of a stage that runs every time and found nothing becomes no run. Raise TrackingError.
    """
    with mlflow_store.open_client(root) as client:
        try:
            records = run_log.read(path)
        except FileNotFoundError:  # the stage had nothing to log
            return False
        if run_log.read_state(path)["done"]:
            return False
        if len(records) < 2 and (not records or records[0].get("runs_always")):
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
    """Sync run logs as they grow until none came for ``linger`` seconds or MLflow does not answer.
    Return at once if another process does it."""
    folder, seen = locations.run_logs(root), set[Path]()
    while True:
        try:
            lock = FileLock(locations.sync_lock(root)).acquire(timeout=LOCK_SECONDS)
        except Timeout:
            return
        with lock:
            try:
                _follow(root, linger, seen)
            except TrackingError as error:  # the next stage, or this one's end, tries again
                for path in _select_own(root, run_log.list_unsynced(folder)):
                    _report(path, error)
                return
        if seen.issuperset(run_log.list_unsynced(folder)):
            return  # else a stage that saw the lock held has started no process


def _follow(root: Path, linger: float, seen: set[Path]) -> None:
    """Sync run logs until none came for ``linger`` seconds; add them to ``seen``. Raise
    TrackingError if MLflow does not answer."""
    refused: set[tuple[Path, bool]] = set()  # run logs, and whether they were open
    next_batch: dict[Path, float] = {}  # when an open run log is due
    end = time.monotonic() + linger
    while time.monotonic() < end:
        unsynced = run_log.list_unsynced(locations.run_logs(root))
        seen.update(unsynced)
        for path in _select_own(root, unsynced):
            is_open, now = run_log.is_open(path), time.monotonic()
            is_due = (path, is_open) not in refused
            is_due &= not is_open or now >= next_batch.get(path, 0)
            if is_due:
                next_batch[path] = now + LIVE_SECONDS
                try:
                    sync_run_log(root, path, live=is_open)
                except mlflow_store.RefusedError as error:
                    refused.add((path, is_open))
                    _report(path, error)
            if is_open or is_due:
                end = time.monotonic() + linger
        if any(map(run_log.is_waiting, locations.run_logs(root).glob("*/*.jsonl"))):
            end = time.monotonic() + linger
        time.sleep(min(POLL_SECONDS, linger))


def _select_own(root: Path, paths: list[Path]) -> list[Path]:
    """Return the run logs that belong to this store, or whose writer is gone."""
    selected = []
    for path in paths:
        key = run_log.read_begin(path).get("store")
        if key == locations.store_key(root) or not run_log.has_writer(path):
            selected.append(path)
    return selected


def _report(path: Path, error: TrackingError) -> None:
    """Write the error for the stage to print, and make a stage that has ended stop waiting."""
    with suppress(OSError):
        if not run_log.is_open(path):
            run_log.write_state(path, **run_log.read_state(path) | {"failed": True})
        with run_log.error_path(path).open("x") as file:
            file.write(str(error))
