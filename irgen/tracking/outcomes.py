"""Log what a build's stages came to: ran, skipped or restored.

DVC skips a stage whose inputs have not changed, and restores one that ran with the same inputs
before. Neither starts the stage, so the stage logs no run. The build's run says it instead.
"""

from pathlib import Path
from typing import Any

from irgen.errors import TrackingError
from irgen.params import Params
from irgen.secrets import scrub
from irgen.tracking import provenance, recorder, run_log
from irgen.workspace import Workspace

RAN, SKIPPED, RESTORED = "ran", "skipped", "restored"
OUTCOMES = (RAN, SKIPPED, RESTORED)
OF_A_BUILD = "outcomes"  # the name of the run log, in place of a stage's


def log_outcomes(root: Path, params: Params, build: str, outcomes: dict[str, str]) -> Path:
    """Write the run log that tells the outcome of each stage of ``build``, and return its path.

    ``outcomes``: ran, skipped or restored by the stage's name. The run log replaces an earlier one
    of the same build. Raises TrackingError for any other outcome.
    """
    for stage, outcome in outcomes.items():
        if outcome not in OUTCOMES:
            allowed = ", ".join(OUTCOMES)
            raise TrackingError(f"{stage}: {outcome!r} is no outcome; allowed: {allowed}")
    begin = recorder.beginning(OF_A_BUILD, params, root) | {
        "build": build,
        "outcomes": outcomes,
        "hashes": {stage: provenance.lock_hash(root, stage) for stage in outcomes},
    }
    path = provenance.journals(root) / run_log.plain(build) / f"{OF_A_BUILD}.jsonl"
    run_log.write(path, [("begin", scrub(begin)), ("end", _end(root, outcomes))])
    run_log.set_state(path, done=False)
    return path


def _end(root: Path, outcomes: dict[str, str]) -> dict[str, Any]:
    """Return what the stages that did not run would have logged for the build."""
    workspace = Workspace.at(root)
    idle = [stage for stage, outcome in outcomes.items() if outcome != RAN]
    tables = {table["name"]: table for stage in idle for table in provenance.tables(root, stage)}
    return {
        "status": "FINISHED",
        "tables": list(tables.values()),
        "summary": recorder.quality(workspace) if "evaluate" in idle else {},
        "standing": provenance.standing(root),
        "monitor": recorder.monitored(workspace) if "drift" in idle else None,
    }
