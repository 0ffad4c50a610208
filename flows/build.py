"""Flow ``build``: run the whole pipeline, then the gate and the release.

Every step can be repeated, so a build that was killed is simply started again.
"""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed, State

from flows import artifacts, held, lock, pipeline, process, release, stage, state, training_revision
from flows.artifacts import Log
from flows.pipeline import PassError
from flows.state import LastPass
from irgen.commands.stage import STAGES
from irgen.files.workspace import Workspace
from irgen.tracking import locations, run_log, stage_facts
from irgen.tracking.outcomes import FAILED

SYNC_SECONDS = 300.0
SOURCE = "download"  # the stage that looks at the source


@flow(name="build", flow_run_name="build", persist_result=False, result_serializer="json")
def build(root: str = ".", pull: bool = False) -> State[Any]:
    """Bring every stage of the pipeline up to date and release the index if it passes the gate.

    root: the project's folder. pull: take results from DVC's remote, if it has them, instead of
    running; for a machine that starts with nothing. Waits if another run holds the project.
    """
    folder = state.find_project(root)
    log = get_run_logger()
    artifacts.name_run(state.catalogue_name(folder), log=log)
    with lock.hold_project(folder, "build", log, wait=True):
        return build_and_release(folder, build=str(flow_run.id), pull=pull)


build.on_cancellation(lock.undo_cancelled_retrain)


def build_and_release(root: Path, *, build: str, pull: bool = False) -> State[Any]:
    """Run the pipeline, release the index if it passes the gate, report that, and push the results
    to DVC's remote. Return the flow run's final state: held, if the source lacks too much. Raises
    the errors of these steps."""
    try:
        final = _run_and_settle(root, build, pull)
    except PassError as error:
        if note := held.read_note(root, error):
            return held.report(root, note, get_run_logger())
        raise
    pipeline.push_results(root)
    return final


def _run_and_settle(root: Path, build: str, pull: bool) -> State[Any]:
    metrics = run_pass(root, build, pull)
    if release.has_index(root):
        return settle(root, build, metrics, pull=pull)
    last = LastPass(key=state.state_key(root), settled=True, metrics=metrics)
    state.write_last_pass(root, last)
    return Completed(name="Built", message="the pipeline makes no index to release")


def settle_last_pass(root: Path, *, build: str) -> State[Any]:
    """Judge, release and report the results of the last pass, which an earlier run left undone."""
    return settle(root, build, stage_facts.read_quality(Workspace.at(root)))


def settle(root: Path, build: str, metrics: dict[str, float], *, pull: bool = False) -> State[Any]:
    """Judge and release the results of a finished pass, and report the decision.

    If the gate rejects a retrain, undo it: restore the training revision and, from DVC's cache, the
    results before it. So new images are still released, with the old models.
    """
    log = get_run_logger()
    decision = release.decide(root, build)
    if training_revision.end(root, released=decision.released):
        release.report_rejected(root, decision, log)
        log.warning("the retrain was rejected: back to the models before it")
        metrics = run_pass(root, build, pull)
        decision = release.decide(root, build)
    return release.report(root, decision, metrics, log)


def run_pass(root: Path, build: str, pull: bool) -> dict[str, float]:
    """Run the pipeline once, note the pass as finished and not settled, and return its metrics.

    If it fails or is killed, no finished pass is noted, so the next update repeats it. A retrain
    whose stages fail MOST_FAILURES times is undone, and the next update uses the old models; a
    source that cannot be read does not count as a failure. If the update is held, the last pass
    stays the last one.
    """
    log = get_run_logger()
    last = state.read_last_pass(root) or LastPass(key="", settled=False)
    before = replace(last, key="")
    state.write_last_pass(root, before)
    try:
        outcomes = pipeline.run(root, build=build, pull=pull)
    except PassError as error:
        if error.stages == (SOURCE,) and held.read_note(root, error):
            state.write_last_pass(root, last)  # nothing has changed
        failed = dict.fromkeys(error.stages, FAILED)
        artifacts.name_run(f"failed in {', '.join(failed)}", log=log)
        sync_outcomes(root, build, failed, log)
        if SOURCE not in error.stages and training_revision.count_failure(root):
            log.warning(
                "the retrain is undone after %s failures: the next update uses the old models",
                training_revision.MOST_FAILURES,
            )
        raise
    metrics = stage_facts.read_quality(Workspace.at(root))
    key = state.state_key(root)
    state.write_last_pass(root, replace(before, key=key, settled=False))
    sync_outcomes(root, build, outcomes, log)
    if metrics:
        text = artifacts.compare_metrics(metrics, before.metrics, "previous build")
        title = "Metrics of this build beside the previous one's"
        artifacts.create_markdown("metrics", text, title, log)
    return metrics


def sync_outcomes(root: Path, build: str, outcomes: dict[str, str], log: Log) -> None:
    """Send the outcome of each of irgen's stages to the build's run in MLflow, and create a link to
    the run. If MLflow is down, a later run sends them."""
    stages = ",".join(f"{name}={outcome}" for name, outcome in outcomes.items() if name in STAGES)
    lines = run_sync(root, build, log, ["--build", build, "--stages", stages])
    if address := next((line for line in lines if line.startswith("http")), None):
        title = "Runs of this build's stages"
        artifacts.create_link("mlflow", address, "The build in MLflow", title, log)


def sync_waiting_runs(root: Path, build: str, log: Log) -> None:
    """Send run logs to MLflow that could not be sent while it was down, if there are any."""
    if run_log.list_unsynced(locations.run_logs(root)):
        run_sync(root, build, log, [])


def run_sync(root: Path, build: str, log: Log, options: list[str]) -> tuple[str, ...]:
    """Run ``irgen sync-runs`` and return its lines. If it fails, log a warning and return none."""
    result = process.run(
        [sys.executable, "-m", "irgen", "sync-runs", *options],
        root=root,
        log=log.info,
        timeout=SYNC_SECONDS,
        settings=stage.environment(build),
    )
    if result.status:
        log.warning("MLflow does not have everything yet: %s", stage.find_reason(result.lines))
        return ()
    return result.lines
