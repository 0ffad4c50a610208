"""The whole pipeline as Prefect tasks: one a stage, after those it depends on, as DVC has them."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from graphlib import TopologicalSorter
from pathlib import Path
from queue import SimpleQueue
from threading import Event
from typing import Any

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError
from prefect.futures import PrefectFuture
from prefect.logging import get_run_logger
from prefect.runtime import task_run
from prefect.states import State

from flows import graph, limits, pages, stage
from flows.graph import Conduct, Node
from flows.stage import Outcome, StageError

FAILED, NOT_RUN = "failed", "not run"  # not run: a stage before it failed
LAST = 2  # stages: the pipeline is nearly through
START_SECONDS = 0.5  # that a task has to begin in before the next one is submitted all the same


class PassError(StageError):
    """Some of the ``stages`` of a pass failed for good; the message is theirs."""

    def __init__(self, message: str, stages: tuple[str, ...]) -> None:
        super().__init__(message)
        self.stages = stages


@dataclass(frozen=True, kw_only=True)
class Done:
    """What a task hands back of its stage."""

    outcome: Outcome
    attempts: int


@task(cache_policy=NO_CACHE, persist_result=False)
def conducted(
    root: Path, name: str, node: Node, build: str, pull: bool, begun: Callable[[], None]
) -> Done:
    """One stage; its output goes to the task's log, and DVC decides whether there is work."""
    begun()
    log, timeout = get_run_logger(), node.conduct.timeout_seconds
    if pull and node.always:
        stage.fetch(root, name, timeout=timeout, tell=log.info)
    outcome = stage.run(root, name, build=build, timeout=timeout, tell=log.info, pull=pull)
    log.info("%s: %s in %.1f s", name, outcome.result, outcome.seconds)
    return Done(outcome=outcome, attempts=task_run.run_count or 1)


def run(
    root: Path, *, build: str, pull: bool = False, nearly: Callable[[], None] = lambda: None
) -> dict[str, str]:
    """Brings every stage up to date, each after its upstream ones and beside those it has nothing
    to do with, and returns what came of each; a table of it is left as an artifact. ``nearly`` is
    called, once, when no more than LAST stages are left.

    Raises PassError, with the stage's own message, if one failed for good; those downstream of it
    are not run, others are.
    """
    log = get_run_logger()
    rows, obstacle = _walk(root, build, pull, nearly, tagged=True)
    if obstacle is not None:
        # Prefect asks its server before it starts a task that has tags, and only then. What was
        # under way has come to its end; going through again, DVC skips it.
        log.warning("Prefect's server did not answer (%s): again, without tags", obstacle)
        first = {row.stage: row for row in rows if row.outcome != stage.SKIPPED}
        rows, _ = _walk(root, build, pull, lambda: None, tagged=False)
        rows = [first.get(row.stage, row) if row.outcome == stage.SKIPPED else row for row in rows]
    pages.table("stages", [asdict(row) for row in rows], _summary(rows), log)
    failed = [row for row in rows if row.outcome == FAILED]
    if failed:
        raise PassError("; ".join(row.note for row in failed), tuple(row.stage for row in failed))
    return {row.stage: row.outcome for row in rows}


def _walk(
    root: Path, build: str, pull: bool, nearly: Callable[[], None], *, tagged: bool
) -> "tuple[list[Row], Exception | None]":
    """Goes through the stages; returns what came of those that were begun, and what kept Prefect
    from starting one of them, if anything did."""
    nodes = graph.read(root)
    futures: dict[str, PrefectFuture[Done]] = {}
    order = TopologicalSorter({name: node.upstream for name, node in nodes.items()})
    order.prepare()
    ended: SimpleQueue[str] = SimpleQueue()
    left = len(nodes)
    if left <= LAST:
        nearly()
    free = tagged and limits.unlimited(
        {tag for each in nodes.values() for tag in each.conduct.tags}
    )
    while order.is_active():
        for name in order.get_ready():
            before = [futures[each] for each in nodes[name].upstream]
            one = _task(name, nodes[name].conduct, tagged)
            if free:
                limits.remember_none(nodes[name].conduct.tags)
            futures[name] = _begun(one, before, root, name, nodes[name], build, pull)
            futures[name].add_done_callback(partial(_tell, ended, name))
        order.done(ended.get())
        left -= 1
        if left == LAST:
            nearly()
    rows, obstacle = [], None
    for name in nodes:
        future = futures[name]
        try:
            future.wait()
        except ConcurrencySlotAcquisitionError as error:
            obstacle = error
        else:
            rows.append(_row(name, future.state))
    return rows, obstacle


def _task(name: str, conduct: Conduct, tagged: bool) -> "Task[..., Done]":
    """A stage's task, with or without its tags."""
    return conducted.with_options(
        name=name,
        task_run_name=name,
        tags=conduct.tags if tagged else (),
        retries=conduct.retries,
        retry_delay_seconds=conduct.retry_delay_seconds,
    )


def _begun(
    one: "Task[..., Done]", before: "list[PrefectFuture[Done]]", *arguments: Any
) -> "PrefectFuture[Done]":
    """Submits a task, which needs those ``before``, and lets it begin before another one may: of
    tasks with tags that begin together, Prefect's server on SQLite turns some away for two
    seconds."""
    begun = Event()
    future = one.submit(*arguments, begun.set, return_state=False, wait_for=before)
    future.add_done_callback(lambda _: begun.set())
    begun.wait(START_SECONDS)
    return future


def _tell(ended: SimpleQueue[str], name: str, future: "PrefectFuture[Done]") -> None:
    ended.put(name)


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of the table that is left as an artifact."""

    stage: str
    outcome: str
    seconds: float = 0.0
    note: str = ""


def _row(name: str, state: "State[Done]") -> Row:
    if state.is_completed():
        done = state.result()
        note = "" if done.attempts == 1 else f"at attempt {done.attempts}"
        seconds = round(done.outcome.seconds, 1)
        return Row(stage=name, outcome=done.outcome.result, seconds=seconds, note=note)
    if state.is_pending():
        return Row(stage=name, outcome=NOT_RUN, note="a stage before it failed")
    error: object = state.result(raise_on_failure=False)
    return Row(stage=name, outcome=FAILED, note=str(error))


def _summary(rows: list[Row]) -> str:
    """How many stages came to what: ``2 ran, 9 skipped``."""
    outcomes = [row.outcome for row in rows]
    return ", ".join(f"{outcomes.count(each)} {each}" for each in dict.fromkeys(outcomes))
