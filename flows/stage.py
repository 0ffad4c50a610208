"""Run one stage of the pipeline by ``dvc repro``, and read its outcome from DVC's output."""

import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from flows import cache_check, process, training_revision
from flows.process import CommandResult
from irgen.errors import IrgenError
from irgen.tracking.outcomes import RAN, RESTORED, SKIPPED
from irgen.tracking.provenance import CONDUCTED

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
FULL_BYTES = 1_000_000
FROM_DVC = re.compile(r"ERROR: |WARNING: |> |Running stage |Reproducing experiment ")


class StageError(IrgenError):
    """A stage failed or took too long; the message is the stage's own."""


@dataclass(frozen=True, kw_only=True)
class StageResult:
    """Outcome of a stage (``ran``, ``skipped`` or ``restored``), and its duration."""

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
    """Bring one stage up to date, after its upstream stages.

    ``build``: the key under which the build's runs are tracked. ``pull``: take results from DVC's
    remote, if it has them, instead of running. DVC fails at once if another process uses a stage's
    files, for example one of an earlier flow run that is just ending; this function waits a minute
    for it. Outputs that DVC restores from a damaged cache are made again. Raises
    StageError with the stage's reason.
    """
    started = time.monotonic()
    options = ["--single-item", stage, *(["--pull"] if pull else [])]
    settings = environment(build)
    if retrain := training_revision.running_retrain(root):  # keep the images before it, to go back
        settings["IRGEN_PREVIOUS_REVISION"] = str(retrain.before)
    while True:
        result = run_dvc(root, ["repro", *options], timeout=timeout, log=log, settings=settings)
        mended = mend_rwlock(result.lines, root)
        if mended:
            log(f"a killed DVC left that file incomplete; it is deleted, {stage} runs again")
        restored = read_outcomes(result.lines).get(stage) == RESTORED
        if restored and (damaged := cache_check.delete_damaged(root, stage)):
            log(f"DVC's cache held damaged copies of {', '.join(damaged)}; {stage} runs again")
            continue
        if not (mended or is_busy(result.lines)) or time.monotonic() - started > BUSY_SECONDS:
            break
        time.sleep(1)
    seconds = time.monotonic() - started
    if result.timed_out:
        raise StageError(
            f"{stage} was stopped after {timeout:g} seconds: raise timeout_seconds in its meta: "
            "prefect: of dvc.yaml if it needs more; finished work is kept"
        )
    if result.status:
        raise StageError(f"{stage} failed: {find_reason(result.lines)}{warn_of_full_disk(root)}")
    outcome = read_outcomes(result.lines).get(stage)
    if outcome is None:
        output = " / ".join(result.lines)
        raise StageError(f"dvc repro {stage} succeeded, but printed no outcome: {output}")
    return StageResult(outcome=outcome, seconds=seconds)


def warn_of_full_disk(root: Path) -> str:
    """Return an addition to an error message if the project's disk is full, else nothing. DVC
    reports its own files, cut off by a full disk, as corrupted."""
    free = shutil.disk_usage(root).free
    return f"; the disk has {free:,} bytes left: free some space" if free < FULL_BYTES else ""


def fetch(root: Path, stage: str, *, timeout: float, log: Callable[[str], None]) -> None:
    """Pull a stage's last outputs from DVC's remote, if it has them. A stage that runs each time
    continues from its last outputs, and DVC does not restore those by itself."""
    settings = environment("")
    result = run_dvc(root, ["pull", stage], timeout=timeout, log=log, settings=settings)
    if result.status:
        log(f"{stage} continues from the local outputs: {find_reason(result.lines)}")


def run_dvc(
    root: Path,
    arguments: list[str],
    *,
    timeout: float,
    log: Callable[[str], None],
    settings: dict[str, str],
) -> CommandResult:
    """Run a DVC command in the project; log its output, but not its advice."""
    return process.run(
        [sys.executable, "-m", "dvc", "--wait-for-lock", *arguments],
        root=root,
        log=lambda line: None if ADVICE.match(line) else log(line),
        timeout=timeout,
        settings=settings,
    )


def environment(build: str) -> dict[str, str]:
    """Return environment variables for a build's processes: the build's key for tracking, this
    Python first in the path, no buffering of output, no questions."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    quiet = {"DVC_NO_ANALYTICS": "1", "DVC_STUDIO_OFFLINE": "1", "GIT_TERMINAL_PROMPT": "0"}
    build_keys = {"IRGEN_BUILD": build, CONDUCTED: str(os.getpid())}
    return quiet | build_keys | {"PATH": path, "PYTHONUNBUFFERED": "1"}


def is_busy(lines: tuple[str, ...]) -> bool:
    """Tell whether DVC did not start because another process uses the files.

    >>> is_busy(("ERROR: failed to reproduce 'a': 'data/a' is busy, it is being blocked by:",))
    True
    """
    return any(line.startswith("ERROR: ") and BUSY in line for line in lines)


def mend_rwlock(lines: tuple[str, ...], root: Path) -> bool:
    """Delete DVC's file of used paths if a killed process left it incomplete. Return whether DVC
    could not read it and now can. DVC locks the file, so no running DVC is writing it."""
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
    """Return the outcome of each stage, by the lines that DVC printed.

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
    """Return the reason of a failure: DVC's error; or the command's last line, if DVC's error only
    says that the command failed.

    >>> find_reason(("irgen trie: no codes", "ERROR: failed to reproduce: failed to run: …"))
    'irgen trie: no codes'
    """
    last = lines[-1] if lines else "it printed nothing"
    if last.startswith("ERROR: ") and "failed to run:" not in last:
        return last.removeprefix("ERROR: ")
    from_command = [line for line in lines if not FROM_DVC.match(line)]
    return (from_command or [last])[-1].strip()
