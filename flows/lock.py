"""Let one flow run at a time change a project, by a lock that ends with its process.

Prefect's own concurrency limit does not suffice: its slots are leases in the server's memory. A
restart of the server kills the run that holds one, and the slot stays taken.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
from filelock import FileLock, Timeout
from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run
from prefect.states import Cancelled, Crashed, State

from flows import events, training_revision
from flows.artifacts import Log
from flows.state import ProjectError, find_project, memory_folder
from irgen.commands.cli import describe_disk_error
from irgen.errors import ArtifactError
from irgen.files.records import read_json, write_json

POLL_SECONDS = 1.0
CANCEL_SECONDS = 10.0  # in which the process of a cancelled run ends


@dataclass(frozen=True, kw_only=True)
class Holder:
    """A flow run that holds a project, or held it last."""

    flow: str
    run: str
    process: int

    def __str__(self) -> str:
        return f"the {self.flow} of process {self.process} (flow run {self.run})"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """Result of an attempt to hold a project. ``mine``: this run holds it. ``other``: if not mine,
    the run that holds it; if mine, the run that was killed while it held it, if there is one."""

    mine: bool
    other: Holder | None


@contextmanager
def hold(
    root: Path, holder: Holder, *, on_wait: Callable[[Holder | None], None] | None
) -> Iterator[Claim]:
    """Hold the project while the block runs.

    If another run holds it, call ``on_wait`` with that run, once, and wait until it ends. Without
    ``on_wait`` do not wait, but yield a claim that is not ``mine``.
    """
    lock, note = _lock(root), memory_folder(root) / "holder.json"
    try:
        lock.acquire(timeout=0)
    except Timeout:
        other = _read_holder(note)
        if on_wait is None:
            yield Claim(mine=False, other=other)
            return
        on_wait(other)
        lock.acquire(poll_interval=POLL_SECONDS)
    try:
        killed = _read_holder(note)
        write_json(note, asdict(holder))
        yield Claim(mine=True, other=killed)
    finally:
        note.unlink(missing_ok=True)  # else this run was killed
        lock.release()


def is_free(root: Path, *, seconds: float = 0.0) -> bool:
    """Tell whether no run holds the project, after waiting up to ``seconds`` for one to end."""
    try:
        with _lock(root).acquire(timeout=seconds):
            return True
    except Timeout:
        return False


def _lock(root: Path) -> FileLock:
    return FileLock(memory_folder(root) / "lock")


def _read_holder(note: Path) -> Holder | None:
    try:
        return Holder(**read_json(note))
    except (ArtifactError, TypeError):  # none is noted
        return None


def request_update(root: Path) -> None:
    """Ask the run that holds the project to start an update when it ends."""
    _request(root).touch()


def take_request(root: Path) -> bool:
    """Tell whether an update was requested, and clear the request."""
    try:
        _request(root).unlink()
    except FileNotFoundError:
        return False
    return True


def _request(root: Path) -> Path:
    return memory_folder(root) / "asked"


@contextmanager
def hold_project(root: Path, flow: str, log: Log, *, wait: bool) -> Iterator[Claim]:
    """Hold the project for this flow run. If an earlier run was killed while it held the project,
    mark it as crashed. At the end, also after an error, start an update if one was requested.
    Raises ProjectError with the remedy if the disk is full or forbidden."""

    def log_wait(holder: Holder | None) -> None:
        log.info("waiting for %s, which holds the project", holder or "another run")

    this_run = Holder(flow=flow, run=str(flow_run.id or ""), process=os.getpid())
    mine = False
    try:
        with hold(root, this_run, on_wait=log_wait if wait else None) as claim:
            mine = claim.mine
            if mine and claim.other:
                log.warning("%s was killed; this run continues its work", claim.other)
                _mark_crashed(claim.other, log)
            yield claim
    except Exception as error:
        if mine:
            _start_requested_update(root, log)
        if message := describe_disk_error(error):
            raise ProjectError(message) from error
        raise
    if mine:
        _start_requested_update(root, log)


def _start_requested_update(root: Path, log: Log) -> None:
    """Start an update if one was requested. If no server answers, the next scheduled update does
    its work."""
    if not take_request(root):
        return
    log.info("an update was dropped meanwhile: starting another one")
    payload = {"why": "dropped while another run held the project"}
    try:
        events.emit(events.CHANGED, root, payload, key=str(flow_run.id or os.getpid()))
    except events.EventError as error:
        log.warning("%s", error)


def drop_update(claim: Claim, root: Path, log: Log) -> State[None]:
    """Drop this update, since another run holds the project, and request a new one when that run
    ends; if it has just ended, start the new one here. Return the flow run's final state."""
    request_update(root)
    if is_free(root):
        _start_requested_update(root, log)
    return Cancelled(
        name="Dropped",
        message=f"dropped on purpose: {claim.other or 'another run'} holds the project; when it "
        "ends, it starts another update",
    )


def undo_cancelled_retrain(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Restore the training revision when a retrain is cancelled (Prefect's hook). Do nothing if the
    run was only waiting for another one that holds the project."""
    root = find_project(flow_run.parameters.get("root", "."))
    if is_free(root, seconds=CANCEL_SECONDS):
        training_revision.end(root, released=False)


def _mark_crashed(holder: Holder, log: Log) -> None:
    """Mark a killed flow run as crashed, if the server still counts it as running."""
    try:
        with get_client(sync_client=True) as client:
            run = client.read_flow_run(UUID(holder.run))
            if run.state is not None and not run.state.is_final():
                state: State[Any] = Crashed(
                    message="its process was killed; the next run continued its work"
                )
                client.set_flow_run_state(run.id, state, force=True)
    except (httpx.HTTPError, ObjectNotFound, RuntimeError, ValueError) as error:  # another server's
        log.warning("%s could not be marked as crashed: %s", holder, error)
