"""Run the whole pipeline as Prefect tasks, one a stage, in the order of DVC's graph."""

from dataclasses import asdict, dataclass
from pathlib import Path

from dvc.repo import Repo
from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError
from prefect.futures import PrefectFuture
from prefect.logging import get_run_logger
from prefect.runtime import task_run
from prefect.states import State

from flows import artifacts, graph, stage
from flows.graph import Node
from flows.stage import StageError, StageResult
from irgen.files.locks import mend_lock_file

FAILED, NOT_RUN = "failed", "not run"  # not run: a stage before it failed
PUSH_SECONDS = 21_600.0


class PassError(StageError):
    """Some ``stages`` of a pass failed after all retries; the message is theirs."""

    def __init__(self, message: str, stages: tuple[str, ...]) -> None:
        super().__init__(message)
        self.stages = stages


@dataclass(frozen=True, kw_only=True)
class Row:
    """Row of a pass's table: a stage, its outcome and duration, and a note."""

    stage: str
    outcome: str
    seconds: float = 0.0
    note: str = ""


@task(cache_policy=NO_CACHE, persist_result=False)
def run_stage(root: Path, name: str, node: Node, build: str, pull: bool) -> tuple[StageResult, int]:
    """Run one stage, unless DVC finds it up to date; log its output. Return its result and the
    number of the attempt."""
    log, timeout = get_run_logger(), node.options.timeout_seconds
    if pull and node.always:
        stage.fetch(root, name, timeout=timeout, log=log.info)
    result = stage.run(root, name, build=build, timeout=timeout, log=log.info, pull=pull)
    log.info("%s: %s in %.1f s", name, result.outcome, result.seconds)
    return result, task_run.run_count or 1


def run(root: Path, *, build: str, pull: bool = False) -> dict[str, str]:
    """Bring every stage up to date, after those it needs and in parallel to the others; return the
    outcome of each stage, and create a table of them as an artifact.

    Raises PassError, with the stage's own message, if one failed after all retries. Stages that
    need it do not run, the others do. Raises ConcurrencySlotAcquisitionError if a stage has tags
    and the server did not answer before its start.
    """
    log = get_run_logger()
    if mend_lock_file(root / "dvc.lock", root / ".cache" / "dvc.lock"):
        log.warning("dvc.lock was incomplete, since DVC was killed; it is restored")
    futures = _submit_stages(root, graph.read(root), build, pull)
    refused: ConcurrencySlotAcquisitionError | None = None
    for future in futures.values():
        try:
            future.wait()
        except ConcurrencySlotAcquisitionError as error:
            refused = error
    if refused is not None:
        raise refused
    rows = [_make_row(name, future.state) for name, future in futures.items()]
    artifacts.create_table("stages", [asdict(row) for row in rows], _summarize(rows), log)
    failed = [row for row in rows if row.outcome == FAILED]
    if failed:
        raise PassError("; ".join(row.note for row in failed), tuple(row.stage for row in failed))
    return {row.stage: row.outcome for row in rows}


Future = PrefectFuture[tuple[StageResult, int]]


def _submit_stages(root: Path, nodes: dict[str, Node], build: str, pull: bool) -> dict[str, Future]:
    """Submit a task for each stage; it begins when the tasks that it needs have result."""
    futures: dict[str, Future] = {}
    for name, node in nodes.items():  # producers come first
        stage_task: Task[..., tuple[StageResult, int]] = run_stage.with_options(
            name=name,
            task_run_name=name,
            tags=node.options.tags,
            retries=node.options.retries,
            retry_delay_seconds=node.options.retry_delay_seconds,
        )
        upstream = [futures[needed] for needed in node.upstream]
        futures[name] = stage_task.submit(root, name, node, build, pull, wait_for=upstream)
    return futures


def _make_row(name: str, state: "State[tuple[StageResult, int]]") -> Row:
    if state.is_completed():
        result, attempt = state.result()
        note = "" if attempt == 1 else f"at attempt {attempt}"
        return Row(stage=name, outcome=result.outcome, seconds=round(result.seconds, 1), note=note)
    if state.is_pending():
        return Row(stage=name, outcome=NOT_RUN, note="a stage before it failed")
    error: object = state.result(raise_on_failure=False)
    return Row(stage=name, outcome=FAILED, note=str(error))


def _summarize(rows: list[Row]) -> str:
    """Count the outcomes: ``2 ran, 9 skipped``."""
    outcomes = [row.outcome for row in rows]
    return ", ".join(f"{outcomes.count(name)} {name}" for name in dict.fromkeys(outcomes))


def push_results(root: Path) -> None:
    """Push all results and DVC's cache of runs to the project's default remote, if it has one, for
    fresh machines. If the remote is down, log it: the next pass pushes the rest."""
    with Repo(str(root)) as repo:
        if repo.config["core"].get("remote") is None:
            return
    state = push(root, return_state=True)
    if not state.is_completed():
        error = state.result(raise_on_failure=False)
        get_run_logger().warning("DVC's remote does not have everything yet: %s", error)


@task(
    name="push",
    task_run_name="push",
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=1,
    retry_delay_seconds=15,
)
def push(root: Path) -> None:
    """Run ``dvc push``. Raises StageError with DVC's reason."""
    result = stage.run_dvc(
        root,
        ["push", "--run-cache"],
        timeout=PUSH_SECONDS,
        log=get_run_logger().info,
        settings=stage.environment(""),
    )
    if result.timed_out:
        raise StageError(f"dvc push was stopped after {PUSH_SECONDS:g} seconds")
    if result.status:
        raise StageError(stage.find_reason(result.lines))
