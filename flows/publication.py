"""From the pipeline's results to what is served: the pass over the stages, the gate, the release,
and everybody told. Every step may be done again, so a pass that was killed is done again whole."""

import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger
from prefect.states import Completed, State

from flows import (
    backup,
    change,
    cutoff,
    events,
    finished,
    pages,
    pipeline,
    process,
    stage,
    warm,
)
from flows.finished import Finished
from flows.pipeline import PassError
from flows.release import Ahead, Decision, has_index
from irgen.cli import STAGES
from irgen.files import read_json
from irgen.tracking import provenance, recorder, run_log
from irgen.workspace import Workspace

Log = logging.Logger | logging.LoggerAdapter
TRACKING_SECONDS = 300.0
SOURCE = "download"  # the stage that looks at it


@dataclass(frozen=True, kw_only=True)
class Pass:
    """A pass over the pipeline: what came of each stage, and what it measured."""

    outcomes: dict[str, str]
    metrics: dict[str, float]


@task(
    name="release",
    task_run_name="release",
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=2,
    retry_delay_seconds=15,
)
def decided(ahead: Ahead) -> Decision:
    """The gate and the release."""
    return ahead.run(get_run_logger().info)


def carry_through(root: Path, *, build: str, pull: bool = False) -> State[Any]:
    """Runs the pipeline, judges what came of it, releases it if it is fit, tells of it, and hands
    the results to DVC's remote; returns the state that the flow run ends in. Raises what the
    pipeline or the release raises."""
    with warm.libraries(root, stage.settings(build)), Ahead(root, build) as ahead:
        made = passed(root, build, pull, ahead.start)
        if has_index(root):
            state = settle(root, made, ahead, pull=pull)
        else:
            done = Finished(key=finished.key(root), settled=True, metrics=made.metrics)
            finished.write(root, done)
            state = Completed(name="Built", message="the pipeline makes no index to be published")
        backup.run(root)
    return state


def publish(root: Path, *, build: str) -> State[Any]:
    """Judges and releases the last pass's results, if that is still to be done."""
    made = Pass(outcomes={}, metrics=recorder.quality(Workspace.at(root)))
    with Ahead(root, build) as ahead:
        return settle(root, made, ahead)


def settle(root: Path, made: Pass, ahead: Ahead, *, pull: bool = False) -> State[Any]:
    """The gate and the release of a finished pass, and everybody told of it.

    A retrain that the gate turned down is taken back: the cut-off and, from DVC's cache, the
    results are again those before it, so that new images go on being published with the old
    models.
    """
    log = get_run_logger()
    decision = decided(ahead)
    if cutoff.end(root, released=decision.released):
        refused(root, decision, log)
        log.warning("the retrain was turned down: back to the models before it")
        made = passed(root, ahead.build, pull, ahead.start)
        decision = decided(ahead)
    return told(root, made, decision, log)


def passed(root: Path, build: str, pull: bool, nearly: Callable[[], None]) -> Pass:
    """One pass over the pipeline, noted as finished but not yet settled; ``nearly`` is called when
    it is nearly through. While it lasts, and if it fails, there is no finished one: the next update
    begins with it. A retrain whose stages fail again and again is taken back, so that the next
    update goes on with the old models; a source that cannot be had is no fault of a retrain's."""
    log = get_run_logger()
    before = replace(finished.read(root) or Finished(key="", settled=False), key="")
    finished.write(root, before)
    try:
        outcomes = pipeline.run(root, build=build, pull=pull, nearly=nearly)
    except PassError as error:
        if SOURCE not in error.stages and cutoff.failed(root):
            log.warning(
                "the retrain is given up after %s failures: the next update goes on with the "
                "models before it",
                cutoff.FAILURES,
            )
        raise
    metrics = recorder.quality(Workspace.at(root))
    finished.write(root, replace(before, key=finished.key(root), settled=False))
    tracked(root, build, outcomes, log, stage.settings(build))
    if metrics:
        text = pages.compared(metrics, before.metrics, "previous build")
        pages.markdown("metrics", text, "Metrics of this build beside the previous one's", log)
    return Pass(outcomes=outcomes, metrics=metrics)


def tracked(
    root: Path, build: str, outcomes: dict[str, str], log: Log, settings: dict[str, str]
) -> None:
    """Completes the build's run in MLflow with the stages that had nothing to do, and links to it.
    Stages that are none of irgen's, such as a user's own, track nothing. MLflow may be down: then
    it is told of, and done by a later run."""
    said = ",".join(f"{name}={came}" for name, came in outcomes.items() if name in STAGES)
    lines = published(root, settings, log, ["--build", build, "--stages", said])
    if address := next((line for line in lines if line.startswith("http")), None):
        pages.link("mlflow", address, "The build in MLflow", "Runs of this build's stages", log)


def catch_up(root: Path, build: str, log: Log) -> None:
    """Logs to MLflow what could not be logged while it was down, if there is anything."""
    if run_log.unpublished(provenance.journals(root)):
        published(root, stage.settings(build), log, [])


def published(
    root: Path, settings: dict[str, str], log: Log, options: list[str]
) -> tuple[str, ...]:
    """What ``irgen publish`` says; a warning if it does not get through."""
    ended = process.run(
        [sys.executable, "-m", "irgen", "publish", *options],
        root=root,
        tell=log.info,
        timeout=TRACKING_SECONDS,
        settings=settings,
    )
    if ended.status:
        log.warning("MLflow does not have everything yet: %s", stage.reason(ended.lines))
        return ()
    return ended.lines


def told(root: Path, made: Pass, decision: Decision, log: Log) -> State[Any]:
    """Tells of the decision and notes that all is settled."""
    if decision.released:
        state = accepted(root, made, decision, log)
    else:
        state = refused(root, decision, log)
    drifted(root, decision, log)
    settled = bool(decision.about["settled"])
    if not settled:
        log.warning("not everybody has been told: %s", "; ".join(decision.about["troubles"]))
    last = finished.read(root)
    assert last is not None, "a pass ends with its note"
    key = finished.key(root)
    finished.write(root, replace(last, key=key, settled=settled, metrics=made.metrics))
    return state


def accepted(root: Path, made: Pass, decision: Decision, log: Log) -> State[Any]:
    """The index is served: what is new since the one before it."""
    about, counted = decision.about, change.counts(root)
    name = f"release {about['version']}"
    payload = named(about) | counted | {"metrics": made.metrics}
    if announce(root, events.UPDATED, payload):
        text = f"# {name} is served\n\n{change.told(counted)}\n\n{about['verdict']['why']}\n"
        pages.markdown("database", text, f"{name}: {change.told(counted)}", log)
    change.remember(root)
    return Completed(name="Released", message=f"{name} is served: {change.told(counted)}")


def refused(root: Path, decision: Decision, log: Log) -> State[Any]:
    """The gate kept the index back: why, and what is not published with it, for whoever is on
    call."""
    about, verdict = decision.about, decision.about["verdict"]
    name, why = f"candidate {about['version']}", verdict["why"]
    counted = change.counts(root)
    payload = named(about) | counted | {"why": why, "figures": verdict["figures"]}
    if announce(root, events.REJECTED, payload):
        served = about["champion"]
        stays = f"Release {served} still is." if served else "None is yet."
        text = f"# {name} is not served\n\n{why}\n\n{stays}\n\n{change.withheld(counted)}\n"
        pages.markdown("rejected", text, f"{name}: {why}", log)
    log.warning("%s is kept back: %s", name, why)
    return Completed(name="Rejected", message=f"{name} is kept back: {why}")


def named(about: dict[str, Any]) -> dict[str, Any]:
    """Which release an event is about, and which is served."""
    return {key: about[key] for key in ("version", "name", "bundle", "revision", "champion")}


def announce(root: Path, event: str, payload: dict[str, Any]) -> bool:
    """Tells of a decision unless it is the one that was told of last; returns whether it did. The
    same index again, after another one, is told of again."""
    last = finished.read(root)
    bundle = payload["bundle"]
    if last is None or last.announced.get(event) == bundle:
        return False
    key = f"{payload['version']} {bundle} {provenance.data_revision(root)}"
    events.emit(event, root, payload, key=key)
    finished.write(root, replace(last, announced=last.announced | {event: bundle}))
    return True


def drifted(root: Path, decision: Decision, log: Log) -> None:
    """Says so if the new images have drifted from those the models were trained on, and asks for a
    retrain unless it would be of no use."""
    path = root / "data" / "drift" / "verdict.json"
    if not path.is_file():
        return
    verdict = read_json(path)
    if verdict["drifted"]:
        objection = cutoff.objection(root, verdict["revision"], verdict["new"])
        if not objection:
            key = f"{decision.about['bundle']}/{verdict['revision']}"
            events.emit(events.DRIFTED, root, verdict, key=key)
        exceeded = ", ".join(
            f"{each['name']} {each['value']:.3g} (allowed: {each['threshold']:.3g})"
            for each in verdict["exceeded"]
        )
        said = f"{verdict['new']} new images at revision {verdict['revision']}: {exceeded}"
        asked = f"No retrain: {objection}." if objection else "A retrain was asked for."
        text = f"# The new images have drifted\n\n{said}\n\n{asked}\n"
        pages.markdown("drift", text, said, log)
        log.warning("drift, %s. %s", said, asked)
