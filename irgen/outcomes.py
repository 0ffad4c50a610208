"""What the stages of a build came to that had nothing to do, in journals like those that ran.

DVC skips a stage whose inputs are those of the last run and restores one that has run with the same
inputs before; neither starts the stage, which then cannot tell of itself.
"""

from pathlib import Path
from typing import Any

from irgen.errors import TrackingError, redact
from irgen.params import Params
from irgen.tracking import provenance, recorder, run_log
from irgen.workspace import Workspace

RAN, SKIPPED, RESTORED = "ran", "skipped", "restored"
OUTCOMES = (RAN, SKIPPED, RESTORED)


def complete_build(root: Path, params: Params, build: str, outcomes: dict[str, str]) -> list[str]:
    """Makes a journal for each stage that was ``skipped`` or ``restored`` in ``build``, and gives
    their names back; those that ran, or have such a journal already, are left out.

    ``outcomes``: ran, skipped or restored by the stage's name. The journals carry the hash of the
    stage's entry in ``dvc.lock``, by which the run that made its results is found when they are
    published. Raises TrackingError for an outcome that is none of these.
    """
    for stage, outcome in outcomes.items():
        if outcome not in OUTCOMES:
            allowed = ", ".join(OUTCOMES)
            raise TrackingError(f"{stage}: {outcome!r} is no outcome; allowed: {allowed}")
    waiting = [
        stage
        for stage, outcome in outcomes.items()
        if outcome != RAN and not _is_told(provenance.journals(root), build, stage)
    ]
    for stage in waiting:
        _tell(root, params, build, stage, outcomes[stage])
    return waiting


def name(stage: str, outcome: str) -> str:
    """The journal's name of a stage that did not run.

    >>> name("trie", "skipped")
    'trie.skipped'
    """
    return f"{stage}.{outcome}"


def _is_told(journals: Path, build: str, stage: str) -> bool:
    """Whether the build has a whole journal of the stage: one of a run that ended well, or one of
    these."""
    place = journals / run_log.plain(build)
    found = [path for path in place.glob("*.jsonl") if path.stem.partition("-")[0] == stage]
    found += [place / f"{name(stage, outcome)}.jsonl" for outcome in (SKIPPED, RESTORED)]
    return any(_has_ended_well(path) for path in found if path.exists())


def _has_ended_well(path: Path) -> bool:
    records = run_log.records(path)
    return bool(records) and records[-1]["kind"] == "end" and records[-1]["status"] == "FINISHED"


def _tell(root: Path, params: Params, build: str, stage: str, outcome: str) -> None:
    workspace = Workspace.at(root)
    digest = provenance.lock_hash(root, stage)
    beginning = recorder.beginning(stage, params, root)
    tags = beginning["tags"] | {"irgen.outcome": outcome}
    tags |= {"dvc.stage_hash": digest} if digest else {}
    beginning |= {"build": build, "tags": tags, "outcome": outcome}
    summary = recorder.quality(workspace) if stage in ("evaluate", "report") else {}
    place = provenance.journals(root) / run_log.plain(build) / f"{name(stage, outcome)}.jsonl"
    place.unlink(missing_ok=True)  # of a process that was killed while it told
    _, file = run_log.create(provenance.journals(root), build, name(stage, outcome))
    with file:
        run_log.append(file, "begin", **redact(beginning))
        if summary and stage == "evaluate":
            run_log.append(file, "metrics", values=summary, step=0)
        run_log.append(file, "end", **_ending(root, stage, workspace) | {"summary": summary})


def _ending(root: Path, stage: str, workspace: Workspace) -> dict[str, Any]:
    return {
        "status": "FINISHED",
        "trouble": "",
        "artifacts": [],
        "tables": provenance.tables(root, stage),
        "outs": provenance.locked_outs(root, stage),
        "standing": provenance.standing(root),
        "monitor": recorder.monitored(workspace) if stage == "drift" else None,
    }
