"""Run the gate and the release, by ``irgen release``, and report the decision."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger
from prefect.states import Completed, State

from flows import artifacts, events, process, stage, state, training_revision
from flows.artifacts import Log
from irgen.errors import ReleaseError
from irgen.files.records import read_json
from irgen.tracking import provenance

TIMEOUT_SECONDS = 6 * 3600.0
KEPT = 3  # the exit status for a candidate that the gate keeps back


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Decision about an index. ``released``: it is served now, newly or already. ``outcome``: the
    output of ``irgen release --json``."""

    released: bool
    outcome: dict[str, Any]


def has_index(root: Path) -> bool:
    """Tell whether the pipeline has made an index."""
    return (root / "data" / "index").is_dir()


@task(
    name="release",
    task_run_name="release",
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=2,
    retry_delay_seconds=15,
)
def decide(root: Path, build: str) -> Decision:
    """Judge the index by the gate and release it if it passes."""
    return run(root, build=build, log=get_run_logger().info)


def run(root: Path, *, build: str, log: Callable[[str], None]) -> Decision:
    """Judge data/index against the champion and release it if it passes; a repetition changes
    nothing. Raises ReleaseError with the command's reason if it failed."""
    result = process.run(
        [sys.executable, "-m", "irgen", "release", "--json"],
        root=root,
        log=lambda line: None if line.startswith("{") else log(line),
        timeout=TIMEOUT_SECONDS,
        settings=stage.environment(build),
    )
    if result.timed_out or result.status not in (0, KEPT):
        raise ReleaseError(f"release failed: {stage.find_reason(result.lines)}")
    for line in reversed(result.lines):
        if line.startswith("{"):
            return Decision(released=result.status == 0, outcome=json.loads(line))
    raise ReleaseError(f"irgen release --json printed no result: {' / '.join(result.lines)}")


def report(root: Path, decision: Decision, metrics: dict[str, float], log: Log) -> State[Any]:
    """Report a decision by events and artifacts, note whether the pass is settled, and return the
    flow run's final state."""
    counts = state.count_changes(root)
    if decision.released:
        final = report_released(root, decision, metrics, log)
    else:
        final = report_rejected(root, decision, log)
    report_drift(root, decision, log)
    result = f"release {decision.outcome['version']}" if decision.released else "kept back"
    artifacts.name_run(state.catalogue_name(root), state.format_news(counts), result, log=log)
    settled = bool(decision.outcome["settled"])
    if not settled:
        log.warning("bucket or MLflow is not up to date: %s", "; ".join(decision.outcome["errors"]))
    last = state.read_last_pass(root)
    assert last is not None, "a pass ends with its note"
    key = state.state_key(root)
    state.write_last_pass(root, replace(last, key=key, settled=settled, metrics=metrics))
    return final


def report_released(
    root: Path, decision: Decision, metrics: dict[str, float], log: Log
) -> State[Any]:
    """Report that the index is served, and the changes since the release before it."""
    outcome, counts = decision.outcome, state.count_changes(root)
    changes, name = state.format_changes(counts), f"release {outcome['version']}"
    if announce(root, events.UPDATED, _identify(outcome) | counts | {"metrics": metrics}):
        text = f"# {name} is served\n\n{changes}\n\n{outcome['verdict']['why']}\n"
        artifacts.create_markdown("database", text, f"{name}: {changes}", log)
    state.remember_manifest(root)
    return Completed(name="Released", message=f"{name} is served: {changes}")


def report_rejected(root: Path, decision: Decision, log: Log) -> State[Any]:
    """Report that the gate rejected the index: why, and which changes wait with it."""
    outcome, verdict = decision.outcome, decision.outcome["verdict"]
    name, why = f"candidate {outcome['version']}", verdict["why"]
    counts = state.count_changes(root)
    payload = _identify(outcome) | counts | {"why": why, "figures": verdict["figures"]}
    if announce(root, events.REJECTED, payload):
        champion = outcome["champion"]
        stays = f"Release {champion} is served." if champion else "No release is served yet."
        waiting = describe_waiting(counts)
        text = f"# {name} is not served\n\n{why}\n\n{stays}\n\n{waiting}\n"
        artifacts.create_markdown("rejected", text, f"{name}: {why}", log)
    log.warning("%s is kept back: %s", name, why)
    return Completed(name="Rejected", message=f"{name} is kept back: {why}")


def describe_waiting(counts: dict[str, int]) -> str:
    """Describe the changes that wait with an index that is not served.

    >>> describe_waiting({"images": 9, "new": 2, "changed": 0, "gone": 0, "revision": 4})
    'Waiting with it: 2 new, 0 changed, 0 gone; 9 images at revision 4.'
    """
    gone = " Searches still find the images that are gone." if counts["gone"] else ""
    return f"Waiting with it: {state.format_changes(counts)}.{gone}"


def _identify(outcome: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of an event that name its release and the champion."""
    return {key: outcome[key] for key in ("version", "name", "bundle", "revision", "champion")}


def announce(root: Path, event: str, payload: dict[str, Any]) -> bool:
    """Emit the event of a decision, unless the last event of this name was for the same index;
    return whether it was emitted."""
    last = state.read_last_pass(root)
    bundle = payload["bundle"]
    if last is None or last.announced.get(event) == bundle:
        return False
    key = f"{payload['version']} {bundle} {provenance.data_revision(root)}"
    events.emit(event, root, payload, key=key)
    state.write_last_pass(root, replace(last, announced=last.announced | {event: bundle}))
    return True


def report_drift(root: Path, decision: Decision, log: Log) -> None:
    """If the new images have drifted from the training images, report it, and request a retrain
    unless it would be useless."""
    path = root / "data" / "drift" / "verdict.json"
    if not path.is_file() or not (verdict := read_json(path))["drifted"]:
        return
    objection = training_revision.find_objection(root, verdict["revision"], verdict["new"])
    if not objection:
        key = f"{decision.outcome['bundle']}/{verdict['revision']}"
        events.emit(events.DRIFTED, root, verdict, key=key)
    exceeded = ", ".join(
        f"{signal['name']} {signal['value']:.3g} (allowed: {signal['threshold']:.3g})"
        for signal in verdict["exceeded"]
    )
    summary = f"{verdict['new']} new images at revision {verdict['revision']}: {exceeded}"
    answer = f"No retrain: {objection}." if objection else "A retrain was requested."
    text = f"# The new images have drifted\n\n{summary}\n\n{answer}\n"
    artifacts.create_markdown("drift", text, summary, log)
    log.warning("drift, %s. %s", summary, answer)
