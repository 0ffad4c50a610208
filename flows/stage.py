"""Run one stage of the pipeline by ``dvc repro``, and tell what DVC did with it."""

import json
import os
import re
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from flows import process, training_revision
from flows.process import Ended
from irgen.errors import IrgenError
from irgen.tracking.outcomes import RAN, RESTORED, SKIPPED

MEANINGS = {  # of what DVC prints; the last of a stage's lines counts
    r"Pulling data for stage: '(.+)'": RESTORED,
    r"Running stage '(.+)':": RAN,
    r"(?:Stage )?'(.+)' didn't change, skipping": SKIPPED,
    r"Stage '(.+)' is cached - skipping run, checking out outputs": RESTORED,
}
# Advice for a person at a terminal, of no use in a log.
ADVICE = re.compile(
    r"Updating lock file|To track the changes with git|To enable auto staging|Use `dvc push`"
    r"|\s*git add |\s*dvc config core.autostage|Verifying data sources"
)
BUSY = "is busy, it is being blocked by"
UNREADABLE = re.compile(r"Unable to read RWLock-file '(.+?)'")
BUSY_SECONDS = 60.0
FROM_DVC = re.compile(r"ERROR: |WARNING: |> |Running stage |Reproducing experiment ")


class StageError(IrgenError):
    """A stage failed or took too long; the message is the stage's own."""


@dataclass(frozen=True, kw_only=True)
class StageResult:
    """What DVC did with a stage: ``ran``, ``skipped`` or ``restored``; and how long that took."""

    outcome: str
    seconds: float


def run(
    root: Path,
    stage: str,
    *,
    build: str,
    timeout: float,
    log: Callable[[str], None],
    pull: bool = False,
) -> StageResult:
    """Bring one stage up to date; its upstream stages must be so already.

    ``build``: the key under which the build's runs are tracked. ``pull``: take from DVC's remote
    what it has instead of running. DVC does not wait for a process that uses a stage's files, such
    as one that is dying with the flow run before this one: this function does, for a minute. Raises
    StageError with the last words of the stage.
    """
    started = time.monotonic()
    options = ["--single-item", stage, *(["--pull"] if pull else [])]
    settings = environment(build) | _previous_revision(root)
    while True:
        ended = run_dvc(root, ["repro", *options], timeout=timeout, log=log, settings=settings)
        mended = mend_rwlock(ended.lines, root)
        if mended:
            log(f"that was left by a DVC that was killed, and is mended; {stage} again")
        if not (mended or is_busy(ended.lines)) or time.monotonic() - started > BUSY_SECONDS:
            break
        time.sleep(1)
    seconds = time.monotonic() - started
    if ended.timed_out:
        raise StageError(
            f"{stage} was stopped after {timeout:g} seconds: raise timeout_seconds in its meta: "
            "prefect: of dvc.yaml if it needs more; what it has finished is kept"
        )
    if ended.status:
        raise StageError(f"{stage} failed: {find_reason(ended.lines)}")
    outcome = read_outcomes(ended.lines).get(stage)
    if outcome is None:
        output = " / ".join(ended.lines)
        raise StageError(f"dvc repro {stage} ended well but did not say what it did: {output}")
    return StageResult(outcome=outcome, seconds=seconds)


def fetch(root: Path, stage: str, *, timeout: float, log: Callable[[str], None]) -> None:
    """Take a stage's last outputs from DVC's remote, for a stage that runs each time and goes on
    from them: DVC restores no such stage. Keeps what is here if the remote has nothing."""
    settings = environment("")
    ended = run_dvc(root, ["pull", stage], timeout=timeout, log=log, settings=settings)
    if ended.status:
        log(f"{stage} goes on from what is here: {find_reason(ended.lines)}")


def run_dvc(
    root: Path,
    arguments: list[str],
    *,
    timeout: float,
    log: Callable[[str], None],
    settings: dict[str, str],
) -> Ended:
    """Run a DVC command in the project; its advice is not logged."""
    return process.run(
        [sys.executable, "-m", "dvc", "--wait-for-lock", *arguments],
        root=root,
        log=lambda line: None if ADVICE.match(line) else log(line),
        timeout=timeout,
        settings=settings,
    )


def environment(build: str) -> dict[str, str]:
    """Return the environment of all that a build starts: its key for tracking, this Python first in
    the path, no buffer before the log, no questions."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    quiet = {"DVC_NO_ANALYTICS": "1", "DVC_STUDIO_OFFLINE": "1", "GIT_TERMINAL_PROMPT": "0"}
    build_keys = {"IRGEN_BUILD": build, "IRGEN_CONDUCTED": "1"}
    return quiet | build_keys | {"PATH": path, "PYTHONUNBUFFERED": "1"}


def _previous_revision(root: Path) -> dict[str, str]:
    """Tell ``download``, during a retrain, the training revision that it may go back to: the bytes
    of the images of then must stay."""
    retrain = training_revision.running_retrain(root)
    return {"IRGEN_PREVIOUS_REVISION": str(retrain.before)} if retrain else {}


def is_busy(lines: tuple[str, ...]) -> bool:
    """Tell whether DVC refused to begin because another DVC process uses the files.

    >>> is_busy(("ERROR: failed to reproduce 'a': 'data/a' is busy, it is being blocked by:",))
    True
    """
    return any(line.startswith("ERROR: ") and BUSY in line for line in lines)


def mend_rwlock(lines: tuple[str, ...], root: Path) -> bool:
    """Delete DVC's file of used paths if a killed process left it cut off; return whether DVC could
    not read it and now can. DVC reads and writes it under a lock, so no living one is writing."""
    match = next((match for line in lines if (match := UNREADABLE.search(line))), None)
    if match is None:
        return False
    path = root / match[1]
    with suppress(FileNotFoundError):
        try:
            json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            path.unlink()
    return True


def read_outcomes(lines: tuple[str, ...]) -> dict[str, str]:
    """Return what DVC did with each stage, by what it printed.

    >>> read_outcomes(("Stage 'trie' didn't change, skipping", "Running stage 'index':"))
    {'trie': 'skipped', 'index': 'ran'}
    """
    outcomes = {}
    for line in lines:
        for pattern, meaning in MEANINGS.items():
            if match := re.fullmatch(pattern, line):
                outcomes[match[1]] = meaning
    return outcomes


def find_reason(lines: tuple[str, ...]) -> str:
    """Return why a command failed: DVC's error, or the last line that is not DVC's if its error
    only says that the command failed.

    >>> find_reason(("irgen trie: no codes", "ERROR: failed to reproduce: failed to run: …"))
    'irgen trie: no codes'
    """
    last = lines[-1] if lines else "it printed nothing"
    if last.startswith("ERROR: ") and "failed to run:" not in last:
        return last.removeprefix("ERROR: ")
    own = [line for line in lines if not FROM_DVC.match(line)]
    return (own or [last])[-1].strip()
