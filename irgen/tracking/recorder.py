"""Record a stage's run in its run log; another process sends it to MLflow.

The stage never talks to MLflow. It appends to its run log, and the sync process (``irgen sync-runs
--watch``) reads that. So a server that is slow or down never delays a stage.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from irgen.errors import redact
from irgen.files.locks import is_locked
from irgen.files.workspace import Workspace
from irgen.params import Params
from irgen.tracking import locations, run_log, stage_facts
from irgen.tracking.provenance import CONDUCTED

SYNC_SECONDS = 60.0  # a finished stage waits for its run log to be synced
LINGER_SECONDS = 15.0  # the sync process waits for the next stage
CLOCK_TICK = 20_000_000  # ns by which the times of files may lag behind


@contextmanager
def record_stage(
    stage: str, params: Params, workspace: Workspace, root: Path
) -> Iterator["Recorder"]:
    """Record what happens in the block as the run of ``stage``.

    At the end wait until the run log is synced, unless ``IRGEN_CONDUCTED`` is set: then it is
    synced while the next stages run. A stage that runs every time is recorded only if it found
    something new, or failed. Errors of tracking are only printed.
    """
    recorder = Recorder(stage, params, workspace, root)
    try:
        yield recorder
    except KeyboardInterrupt:
        recorder.finish("KILLED")
        raise
    except BaseException as error:
        recorder.finish("FAILED", f"{type(error).__name__}: {error}")
        raise
    recorder.finish("FINISHED")


class Recorder:
    """A running stage's run log, and the sync process that reads it."""

    def __init__(self, stage: str, params: Params, workspace: Workspace, root: Path) -> None:
        self.stage, self.params, self.workspace, self.root = stage, params, workspace, root
        self.started = time.time_ns() - CLOCK_TICK
        self.result: dict[str, float] = {}
        self.step = 0
        self.has_metrics = self.runs_always = False
        self.sync_process: subprocess.Popen[bytes] | None = None
        self.run_log: run_log.RunLog | None = None
        with _only_warn():
            begin = stage_facts.describe_begin(stage, params, root)
            self.run_log = run_log.create(locations.run_logs(root), begin["build"], stage)
            self._append("begin", **begin)
            self.runs_always = begin["runs_always"]
            if not self.runs_always:
                self._start_sync()

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Record the metrics of a step. Skip metrics without a value (None)."""
        values = {key: float(value) for key, value in metrics.items() if value is not None}
        self.step = max(self.step, step)
        self._append("metrics", values=values, step=step)
        if not self.has_metrics:
            self._start_sync()
        self.has_metrics = True
        self._show_sync_error()

    def log_result(self, metrics: dict[str, float]) -> None:
        """Record the metrics that the stage ends with."""
        self.result = dict(metrics)

    def finish(self, status: str, error: str = "") -> None:
        """Close the run log and wait until it is synced. If it is not, copy its files, since the
        next run changes them. Delete the run log of a stage that runs always and found nothing."""
        if self.run_log is None:
            return
        with _only_warn():
            files = stage_facts.describe_new_files(self.workspace, self.stage, self.started)
            if self.runs_always and not (self.has_metrics or self.result or files or error):
                self.run_log.delete()
                if run_log.list_unsynced(locations.run_logs(self.root)):
                    self._start_sync()
                return
            self._append_end(status, error, files)
            self._start_sync()
            if not os.environ.get(CONDUCTED) and not self._wait_for_sync():
                self._copy_files(files)
            self._show_sync_error()
            self.run_log.lock.release()

    def _append_end(self, status: str, error: str, files: list[dict[str, Any]]) -> None:
        end = stage_facts.describe_end(
            self.stage, self.params, self.workspace, status=status, error=error, files=files
        )
        metrics = self.result | (end["summary"] if self.stage == "evaluate" else {})
        if metrics:
            self._append("metrics", values=metrics, step=self.step)
        if os.environ.get(CONDUCTED):  # before the end, at which the sync process deletes them
            self._copy_files(files)
        self._append("end", **end)

    def _copy_files(self, files: list[dict[str, Any]]) -> None:
        if self.run_log is None or not self.run_log.path.exists():
            return
        folder = run_log.copies_folder(self.run_log.path)
        max_bytes = self.params.tracking.max_artifact_megabytes * 1_000_000
        for file in files:
            if run_log.is_copied(file, max_bytes) and Path(file["path"]).is_file():
                (folder / file["name"]).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file["path"], folder / file["name"])

    def _start_sync(self) -> None:
        with _only_warn():
            if not self._is_syncing():
                self.sync_process = start_sync_process(self.root)

    def _is_syncing(self) -> bool:
        is_starting = self.sync_process is not None and self.sync_process.poll() is None
        return is_starting or is_locked(locations.sync_lock(self.root))

    def _wait_for_sync(self) -> bool:
        """Wait until the run log is sent; False if that fails or takes too long."""
        assert self.run_log is not None
        deadline = time.monotonic() + SYNC_SECONDS
        while time.monotonic() < deadline:
            is_syncing = self._is_syncing()
            state = run_log.read_state(self.run_log.path)
            if state["done"] or state.get("sent"):
                return True
            if state.get("failed") or not is_syncing:
                return False
            time.sleep(0.05)
        return False

    def _show_sync_error(self) -> None:
        """Print the error of the sync process, once a build."""
        if self.run_log is None:
            return
        path = run_log.error_path(self.run_log.path)
        with suppress(OSError):
            if path.exists():
                path.with_suffix(".shown").touch(exist_ok=False)
                _warn(
                    f"{path.read_text()}; the run goes on and is logged later (by the next run, or "
                    "irgen sync-runs)"
                )

    def _append(self, kind: str, **fields: Any) -> None:
        if self.run_log is None:
            return
        try:
            self.run_log.append(kind, **redact(fields))
        except OSError as error:
            path, self.run_log = self.run_log.path, None
            _warn(f"the run log {path} cannot be written ({error.strerror}); the run goes on")


def start_sync_process(root: Path) -> "subprocess.Popen[bytes]":
    """Start the process that syncs run logs, in a session of its own; it prints to a log file."""
    project = locations.find_project(root)
    packages = str(Path(__file__).resolve().parents[2])
    search_path = os.pathsep.join(filter(None, [packages, os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "irgen", "sync-runs", "--root", str(project)]
    with (locations.run_logs(root) / "sync.log").open("w") as log:
        return subprocess.Popen(
            [*command, "--watch", str(LINGER_SECONDS)],
            cwd=project,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=os.environ | {"PYTHONPATH": search_path},
            start_new_session=True,
        )


@contextmanager
def _only_warn() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # tracking must not end a training, whatever goes wrong with it
        _warn(f"{redact(f'{type(error).__name__}: {error}')}; the run goes on")


def _warn(message: str) -> None:
    print(f"tracking: {message}", file=sys.stderr, flush=True)
