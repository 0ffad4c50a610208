"""Log the outcome of each stage of a build: ran, skipped, restored or failed.

DVC skips a stage whose inputs have not changed, and restores one that ran with the same inputs
before. Neither starts the stage, so the stage logs no run. The build's run records the outcome.
"""

from pathlib import Path
from typing import Any

from irgen.errors import TrackingError, redact
from irgen.files.workspace import Workspace
from irgen.params import Params
from irgen.tracking import locations, provenance, run_log, stage_facts

RAN, SKIPPED, RESTORED, FAILED = "ran", "skipped", "restored", "failed"
OUTCOMES = (RAN, SKIPPED, RESTORED, FAILED)


def log_outcomes(root: Path, params: Params, build: str, outcomes: dict[str, str]) -> Path:
    """Write a run log with the outcome of each stage of ``build``, and return its path.

    ``outcomes``: one of OUTCOMES by the stage's name. The run log replaces an earlier one
    of the same build. Raises TrackingError for any other outcome.
    """
    for stage, outcome in outcomes.items():
        if outcome not in OUTCOMES:
            allowed = ", ".join(OUTCOMES)
            raise TrackingError(f"{stage}: {outcome!r} is no outcome; allowed: {allowed}")
    begin = stage_facts.describe_begin(run_log.OUTCOMES, params, root) | {
        "build": build,
        "outcomes": outcomes,
        "hashes": {stage: provenance.hash_lock_entry(root, stage) for stage in outcomes},
    }
    folder = locations.run_logs(root) / run_log.safe_name(build)
    path = folder / f"{run_log.OUTCOMES}.jsonl"
    run_log.write(path, [("begin", redact(begin)), ("end", _describe_end(root, params, outcomes))])
    run_log.write_state(path, done=False)
    return path


def _describe_end(root: Path, params: Params, outcomes: dict[str, str]) -> dict[str, Any]:
    """Return what the stages that did not run would have logged for the build."""
    workspace = Workspace.at(root)
    idle = [stage for stage, outcome in outcomes.items() if outcome in (SKIPPED, RESTORED)]
    tables = {
        table["name"]: table for stage in idle for table in provenance.describe_tables(root, stage)
    }
    return {
        "status": "FAILED" if FAILED in outcomes.values() else "FINISHED",
        "files": stage_facts.describe_reports(workspace) if "report" in idle else [],
        "tables": list(tables.values()),
        "summary": stage_facts.read_key_metrics(workspace) if "evaluate" in idle else {},
        "build_tags": stage_facts.read_build_tags(params, workspace),
        "monitor": stage_facts.read_monitor(workspace) if "drift" in idle else None,
    }
