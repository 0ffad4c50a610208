"""The flow ``build``: the whole pipeline, then the gate and the release.

Every step may be done again, so a build that was killed is simply done again.
"""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed, State

from flows import artifacts, lock, pipeline, process, release, stage, state, training_revision
from flows.artifacts import Log
from flows.pipeline import PassError
from flows.state import LastPass
from irgen.commands.stage import STAGES
from irgen.tracking import locations, run_log, stage_facts
from irgen.workspace import Workspace

SYNC_SECONDS = 300.0
SOURCE = "download"  # the stage that looks at the source


@flow(name="build", persist_result=False, result_serializer="json")
def build(root: str = ".", pull: bool = False) -> State[Any]:
    """Bring every stage of the pipeline up to date and release the index if it passes the gate.

    root: the project's folder. pull: take results from DVC's remote where it has them, instead of
    running; for a machine that starts with nothing. Waits for a run that has the project.
    """
    folder = state.find_project(root)
    with lock.hold_project(folder, "build", get_run_logger(), wait=True):
        return build_and_release(folder, build=str(flow_run.id), pull=pull)


build.on_cancellation(lock.undo_cancelled_retrain)


def build_and_release(root: Path, *, build: str, pull: bool = False) -> State[Any]:
    """Run the pipeline, release the index if it passes the gate, report that, and push the results
    to DVC's remote; return the state that the flow run ends in. Raises what these raise."""
    metrics = run_pass(root, build, pull)
    if release.has_index(root):
        final = settle(root, build, metrics, pull=pull)
    else:
        last = LastPass(key=state.state_key(root), settled=True, metrics=metrics)
        state.write_last_pass(root, last)
        final = Completed(name="Built", message="the pipeline makes no index to release")
    pipeline.push_results(root)
    return final


def settle_last_pass(root: Path, *, build: str) -> State[Any]:
    """Judge and release the results of the last pass, as far as that is still to be done."""
    return settle(root, build, stage_facts.read_quality(Workspace.at(root)))


def settle(root: Path, build: str, metrics: dict[str, float], *, pull: bool = False) -> State[Any]:
    """Pass a finished pass through gate and release, and report it.

    A retrain that the gate rejects is undone: the training revision and, from DVC's cache, the
    results are again those before it, so that new images go on being released with the old models.
    """
    log = get_run_logger()
    decision = release.decide(root, build)
    if training_revision.end(root, released=decision.released):
        release.report_rejected(root, decision, log)
        log.warning("the retrain was turned down: back to the models before it")
        metrics = run_pass(root, build, pull)
        decision = release.decide(root, build)
    return release.report(root, decision, metrics, log)


def run_pass(root: Path, build: str, pull: bool) -> dict[str, float]:
    """Run the pipeline once and note the pass as finished, not yet settled; return its metrics.

    While it runs, and if it fails, no finished pass is noted: the next update begins with it. A
    retrain whose stages fail again and again is undone, so that the next update goes on with the
    old models; a source that cannot be read does not count.
    """
    log = get_run_logger()
    before = replace(state.read_last_pass(root) or LastPass(key="", settled=False), key="")
    state.write_last_pass(root, before)
    try:
        outcomes = pipeline.run(root, build=build, pull=pull)
    except PassError as error:
        if SOURCE not in error.stages and training_revision.count_failure(root):
            log.warning(
                "the retrain is given up after %s failures: the next update goes on with the "
                "models before it",
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
        artifacts.leave_markdown("metrics", text, title, log)
    return metrics


def sync_outcomes(root: Path, build: str, outcomes: dict[str, str], log: Log) -> None:
    """Log to the build's run in MLflow what each of irgen's stages came to, and leave a link to the
    run. If MLflow is down, log it: a later run does the same."""
    own = ",".join(f"{name}={outcome}" for name, outcome in outcomes.items() if name in STAGES)
    lines = run_sync(root, build, log, ["--build", build, "--stages", own])
    if address := next((line for line in lines if line.startswith("http")), None):
        title = "Runs of this build's stages"
        artifacts.leave_link("mlflow", address, "The build in MLflow", title, log)


def sync_waiting_runs(root: Path, build: str, log: Log) -> None:
    """Log to MLflow the runs that could not be logged while it was down, if there are any."""
    if run_log.list_unsynced(locations.run_logs(root)):
        run_sync(root, build, log, [])


def run_sync(root: Path, build: str, log: Log, options: list[str]) -> tuple[str, ...]:
    """Run ``irgen sync-runs`` and return its lines; none, and a warning, if it failed."""
    ended = process.run(
        [sys.executable, "-m", "irgen", "sync-runs", *options],
        root=root,
        log=log.info,
        timeout=SYNC_SECONDS,
        settings=stage.environment(build),
    )
    if ended.status:
        log.warning("MLflow does not have everything yet: %s", stage.find_reason(ended.lines))
        return ()
    return ended.lines
