"""What every flow run that changes the project does first: take its turn."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run
from prefect.states import Cancelled, Crashed, State

from flows import cutoff, events, guard, project
from flows.guard import Holder, Turn

Log = logging.Logger | logging.LoggerAdapter
ENDING_SECONDS = 10.0  # in which a cancelled run's process is gone


def me(flow: str) -> Holder:
    """This flow run, as others are told of it."""
    return Holder(
        flow=flow, run=str(flow_run.id or ""), name=flow_run.name or "", process=os.getpid()
    )


@contextmanager
def turn(root: Path, flow: str, log: Log, *, wait: bool) -> Iterator[Turn]:
    """The project for this flow run alone. If a run was killed while it had it, that one is marked
    as crashed; if another asked in vain while this one had it, an update is asked for after, also
    if this one fails."""

    def waiting(holder: Holder | None) -> None:
        log.info("waiting for %s, which has the project", holder or "another run")

    mine = False
    try:
        with guard.turn(root, me(flow), wait=waiting if wait else None) as found:
            mine = found.mine
            if mine and found.other:
                log.warning("%s was killed half way; this run goes on from there", found.other)
                bury(found.other, log)
            yield found
    except Exception:
        if mine:
            serve_dropped(root, log)
        raise
    if mine:
        serve_dropped(root, log)


def serve_dropped(root: Path, log: Log) -> None:
    """Asks for another update if one was dropped."""
    if guard.asked(root):
        log.info("an update was dropped meanwhile: asking for another one")
        ask_again(root, log)


def ask_again(root: Path, log: Log) -> None:
    """Asks for an update; if nobody hears it, the next scheduled one does the same."""
    key = str(flow_run.id or os.getpid())
    try:
        events.emit(events.CHANGED, root, {"why": "dropped while another run was at it"}, key=key)
    except events.EventError as error:
        log.warning("%s", error)


def dropped(found: Turn, root: Path, log: Log) -> State[None]:
    """The state of an update that does not wait: the project is in use, and its holder will ask for
    another update when it is through; so does this one if that has just missed the word."""
    guard.ask(root)
    if guard.free(root):
        serve_dropped(root, log)
    return Cancelled(
        name="Dropped",
        message=f"dropped on purpose: {found.other or 'another run'} has the project; it asks for "
        "another update when it is through",
    )


def take_back(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """For a run that somebody cancels: a retrain that it was at is not gone on with, as one that
    was killed is; the cut-off goes back, and it counts as turned down. Nothing if it only waited
    for a run that has the project."""
    root = project.find(flow_run.parameters.get("root", "."))
    if guard.free(root, seconds=ENDING_SECONDS):
        cutoff.end(root, released=False)


def bury(killed: Holder, log: Log) -> None:
    """Marks a flow run as crashed that still counts as running: its lock is free, so its process
    is dead."""
    try:
        with get_client(sync_client=True) as client:
            found = client.read_flow_run(UUID(killed.run))
            if found.state is not None and not found.state.is_final():
                state: State[Any] = Crashed(
                    message="its process was killed; the next run went on from there"
                )
                client.set_flow_run_state(found.id, state, force=True)
    except (httpx.HTTPError, ObjectNotFound, RuntimeError, ValueError) as error:  # another server's
        log.warning("%s could not be marked as crashed: %s", killed, error)
