"""The gate and the release, by ``irgen release``, and the report of what it decided."""

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
from irgen.files import read_json
from irgen.tracking import provenance

TIMEOUT_SECONDS = 6 * 3600.0
KEPT = 3  # the exit status for a candidate that the gate keeps back


@dataclass(frozen=True, kw_only=True)
class Decision:
    """``released``: the index is served now, newly or already. ``about``: what ``irgen release
    --json`` printed about it."""

    released: bool
    about: dict[str, Any]


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
    """Pass the index through the gate and release it if it passes."""
    return run(root, build=build, log=get_run_logger().info)


def run(root: Path, *, build: str, log: Callable[[str], None]) -> Decision:
    """Judge data/index against the champion and release it if it is fit; done again, this changes
    nothing. Raises ReleaseError with the command's last words if it failed."""
    ended = process.run(
        [sys.executable, "-m", "irgen", "release", "--json"],
        root=root,
        log=lambda line: None if line.startswith("{") else log(line),
        timeout=TIMEOUT_SECONDS,
        settings=stage.environment(build),
    )
    if ended.timed_out or ended.status not in (0, KEPT):
        raise ReleaseError(f"release failed: {stage.find_reason(ended.lines)}")
    for line in reversed(ended.lines):
        if line.startswith("{"):
            return Decision(released=ended.status == 0, about=json.loads(line))
    raise ReleaseError(f"irgen release --json printed no result: {' / '.join(ended.lines)}")


def report(root: Path, decision: Decision, metrics: dict[str, float], log: Log) -> State[Any]:
    """Report a decision by events and artifacts, note whether all is settled, and return the state
    that the flow run ends in."""
    if decision.released:
        final = report_released(root, decision, metrics, log)
    else:
        final = report_rejected(root, decision, log)
    report_drift(root, decision, log)
    settled = bool(decision.about["settled"])
    if not settled:
        log.warning("not everybody has been told: %s", "; ".join(decision.about["errors"]))
    last = state.read_last_pass(root)
    assert last is not None, "a pass ends with its note"
    key = state.state_key(root)
    state.write_last_pass(root, replace(last, key=key, settled=settled, metrics=metrics))
    return final


def report_released(
    root: Path, decision: Decision, metrics: dict[str, float], log: Log
) -> State[Any]:
    """Report that the index is served, and what is new since the release before it."""
    about, counts = decision.about, state.count_changes(root)
    changes, name = state.format_changes(counts), f"release {about['version']}"
    if announce(root, events.UPDATED, _identify(about) | counts | {"metrics": metrics}):
        text = f"# {name} is served\n\n{changes}\n\n{about['verdict']['why']}\n"
        artifacts.leave_markdown("database", text, f"{name}: {changes}", log)
    state.remember_manifest(root)
    return Completed(name="Released", message=f"{name} is served: {changes}")


def report_rejected(root: Path, decision: Decision, log: Log) -> State[Any]:
    """Report that the gate kept the index back: why, and which changes wait with it."""
    about, verdict = decision.about, decision.about["verdict"]
    name, why = f"candidate {about['version']}", verdict["why"]
    counts = state.count_changes(root)
    payload = _identify(about) | counts | {"why": why, "figures": verdict["figures"]}
    if announce(root, events.REJECTED, payload):
        champion = about["champion"]
        stays = f"Release {champion} still is." if champion else "None is yet."
        waiting = describe_waiting(counts)
        text = f"# {name} is not served\n\n{why}\n\n{stays}\n\n{waiting}\n"
        artifacts.leave_markdown("rejected", text, f"{name}: {why}", log)
    log.warning("%s is kept back: %s", name, why)
    return Completed(name="Rejected", message=f"{name} is kept back: {why}")


def describe_waiting(counts: dict[str, int]) -> str:
    """Say which changes wait with an index that is not served.

    >>> describe_waiting({"images": 9, "new": 2, "changed": 0, "gone": 0, "revision": 4})
    'Waiting with it: 2 new, 0 changed, 0 gone; 9 images at revision 4.'
    """
    gone = " Searches still find what is gone." if counts["gone"] else ""
    return f"Waiting with it: {state.format_changes(counts)}.{gone}"


def _identify(about: dict[str, Any]) -> dict[str, Any]:
    """Return which release an event is about, and which is served."""
    return {key: about[key] for key in ("version", "name", "bundle", "revision", "champion")}


def announce(root: Path, event: str, payload: dict[str, Any]) -> bool:
    """Emit the event of a decision unless the last event of its name was for the same index; return
    whether it was emitted. The same index again, after another one, is announced again."""
    last = state.read_last_pass(root)
    bundle = payload["bundle"]
    if last is None or last.announced.get(event) == bundle:
        return False
    key = f"{payload['version']} {bundle} {provenance.data_revision(root)}"
    events.emit(event, root, payload, key=key)
    state.write_last_pass(root, replace(last, announced=last.announced | {event: bundle}))
    return True


def report_drift(root: Path, decision: Decision, log: Log) -> None:
    """If the new images have drifted from those of the training, report it, and ask for a retrain
    unless that would be useless."""
    path = root / "data" / "drift" / "verdict.json"
    if not path.is_file() or not (verdict := read_json(path))["drifted"]:
        return
    objection = training_revision.find_objection(root, verdict["revision"], verdict["new"])
    if not objection:
        key = f"{decision.about['bundle']}/{verdict['revision']}"
        events.emit(events.DRIFTED, root, verdict, key=key)
    exceeded = ", ".join(
        f"{signal['name']} {signal['value']:.3g} (allowed: {signal['threshold']:.3g})"
        for signal in verdict["exceeded"]
    )
    what = f"{verdict['new']} new images at revision {verdict['revision']}: {exceeded}"
    answer = f"No retrain: {objection}." if objection else "A retrain was asked for."
    text = f"# The new images have drifted\n\n{what}\n\n{answer}\n"
    artifacts.leave_markdown("drift", text, what, log)
    log.warning("drift, %s. %s", what, answer)
