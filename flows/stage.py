"""One stage of the pipeline: ``dvc repro`` of it alone, and what came of that."""

import json
import os
import re
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from flows import cutoff, process, warm
from irgen.errors import IrgenError

RAN, SKIPPED, RESTORED = "ran", "skipped", "restored"
SAID = {  # what DVC prints, and what it means; the last of a stage's lines counts
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
PATIENCE_SECONDS = 60.0
DVCS = re.compile(r"ERROR: |WARNING: |> |Running stage |Reproducing experiment ")


class StageError(IrgenError):
    """A stage failed or took too long; the message is the stage's own."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a stage: ``ran``, ``skipped`` (nothing had changed) or ``restored`` (from
    DVC's cache of runs), and how long it took."""

    result: str
    seconds: float


def run(
    root: Path,
    stage: str,
    *,
    build: str,
    timeout: float,
    tell: Callable[[str], None],
    pull: bool = False,
) -> Outcome:
    """Brings one stage up to date, its upstream stages being so already. DVC does not wait for a
    process that has a stage's files, such as one that is just dying with the flow run before this
    one: so this does, for a minute.

    ``build`` is the key under which the stages' runs are tracked together; ``pull``: take what the
    remote has instead of running. Raises StageError with what the stage said last.
    """
    started = time.monotonic()
    command = warm.dvc("--wait-for-lock", "repro", "--single-item", stage)
    while True:
        ended = process.run(
            [*command, "--pull"] if pull else command,
            root=root,
            tell=lambda line: None if ADVICE.match(line) else tell(line),
            timeout=timeout,
            settings=settings(build) | _spared(root),
        )
        mended = is_mended(ended.lines, root)
        if mended:
            tell(f"that was left by a DVC that was killed, and is mended; {stage} again")
        if not (mended or is_busy(ended.lines)) or time.monotonic() - started > PATIENCE_SECONDS:
            break
        time.sleep(1)
    seconds = time.monotonic() - started
    if ended.timed_out:
        raise StageError(
            f"{stage} was stopped after {timeout:g} seconds: raise timeout_seconds in its meta: "
            "prefect: of dvc.yaml if it needs more; what it has finished is kept"
        )
    if ended.status:
        raise StageError(f"{stage} failed: {reason(ended.lines)}")
    result = outcomes(ended.lines).get(stage)
    if result is None:
        said = " / ".join(ended.lines)
        raise StageError(f"dvc repro {stage} ended well but did not say what it did: {said}")
    return Outcome(result=result, seconds=seconds)


def is_busy(lines: tuple[str, ...]) -> bool:
    """Whether DVC refused to begin because another process of it has the files.

    >>> is_busy(("ERROR: failed to reproduce 'a': 'data/a' is busy, it is being blocked by:",))
    True
    """
    return any(line.startswith("ERROR: ") and BUSY in line for line in lines)


def is_mended(lines: tuple[str, ...], root: Path) -> bool:
    """Whether DVC could not read its file of who has which files, and now can. It is written in
    place, under a lock that must be had to read it, too: one that is cut off is of a process that
    was killed. Such a file is deleted."""
    found = next((match for line in lines if (match := UNREADABLE.search(line))), None)
    if found is None:
        return False
    path = root / found[1]
    with suppress(FileNotFoundError):
        try:
            json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            path.unlink()
    return True


def fetch(root: Path, stage: str, *, timeout: float, tell: Callable[[str], None]) -> None:
    """Takes what a stage left from the remote. For a stage that runs each time and goes on from
    what is there: DVC restores no such stage, and with nothing there it would begin from scratch.
    If the remote does not have it, or there is something else already, it stays as it is."""
    command = warm.dvc("--wait-for-lock", "pull", stage)
    ended = process.run(command, root=root, tell=tell, timeout=timeout, settings=settings(""))
    if ended.status:
        tell(f"{stage} goes on from what is here: {reason(ended.lines)}")


def settings(build: str, comparison: str = "") -> dict[str, str]:
    """The environment of whatever a build starts: its key for tracking (and that of the comparison
    it is a point of), which the build itself sees published, ``python`` being the one that this
    runs on, no buffer between a line and the log, no questions asked."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    quiet = {"DVC_NO_ANALYTICS": "1", "DVC_STUDIO_OFFLINE": "1", "GIT_TERMINAL_PROMPT": "0"}
    keys = {"IRGEN_BUILD": build, "IRGEN_CONDUCTED": "1"}
    keys |= {"IRGEN_COMPARISON": comparison} if comparison else {}
    return quiet | keys | {"PATH": path, "PYTHONUNBUFFERED": "1"}


def _spared(root: Path) -> dict[str, str]:
    """For ``download``, while a retrain is under way: the cut-off that it may go back to, so that
    no bytes are deleted that the models of then were trained on."""
    attempt = cutoff.underway(root)
    return {"IRGEN_CUTOFF_BEFORE": str(attempt.before)} if attempt else {}


def outcomes(lines: tuple[str, ...]) -> dict[str, str]:
    """What DVC did with each stage, by what it printed.

    >>> outcomes(("Stage 'trie' didn't change, skipping", "Running stage 'index':"))
    {'trie': 'skipped', 'index': 'ran'}
    """
    found = {}
    for line in lines:
        for pattern, meaning in SAID.items():
            if match := re.fullmatch(pattern, line):
                found[match[1]] = meaning
    return found


def reason(lines: tuple[str, ...]) -> str:
    """Why a command failed: what DVC found wrong, or the last line that is not DVC's if all it
    says is that the command failed.

    >>> reason(("irgen trie: no codes", "ERROR: failed to reproduce 'trie': failed to run: …"))
    'irgen trie: no codes'
    """
    last = lines[-1] if lines else "it said nothing"
    if last.startswith("ERROR: ") and "failed to run:" not in last:
        return last.removeprefix("ERROR: ")
    own = [line for line in lines if not DVCS.match(line)]
    return (own or [last])[-1].strip()
