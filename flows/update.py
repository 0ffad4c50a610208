"""Flow ``update``: check the source, and release its changes; nothing is trained."""

from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed, State

from flows import artifacts, held, lock, source_check, state
from flows.build import build_and_release, settle_last_pass, sync_waiting_runs
from irgen.errors import SourceError


@flow(name="update", flow_run_name="update", persist_result=False, result_serializer="json")
def update(root: str = ".") -> State[Any]:
    """Check the source. If it has changed, or the last run was interrupted, run the pipeline and
    release the index if it passes the gate. If the source is away, or lacks too much, nothing is
    removed, and the run ends as held.

    root: the project's folder. If another run holds the project, this one is dropped, and that one
    starts another update when it ends.
    """
    folder, log = state.find_project(root), get_run_logger()
    with lock.hold_project(folder, "update", log, wait=False) as claim:
        if not claim.mine:
            artifacts.name_run("dropped", log=log)
            return lock.drop_update(claim, folder, log)
        lock.take_request(folder)  # this run serves an earlier request too
        last, build = state.read_last_pass(folder), str(flow_run.id)
        is_done = last is not None and last.key == state.state_key(folder)
        try:
            changed = not is_done or check_source(folder, build)
        except SourceError as error:
            if note := held.read_note(folder, error):
                return held.report(folder, note, log)
            raise
        if changed or last is None:
            return build_and_release(folder, build=build)
        sync_waiting_runs(folder, build, log)
        if last.settled:
            artifacts.name_run("nothing new", log=log)
            return Completed(name="Unchanged", message=source_check.UNCHANGED)
        log.info("%s; the last run's results are not released yet", source_check.UNCHANGED)
        return settle_last_pass(folder, build=build)


update.on_cancellation(lock.undo_cancelled_retrain)


@task(
    name="check source", task_run_name="check source", cache_policy=NO_CACHE, persist_result=False
)
def check_source(root: Path, build: str) -> bool:
    """Tell whether the source may differ from the project's copy. Not retried: the next update
    checks again."""
    return source_check.has_changed(root, build=build, log=get_run_logger().info)
