"""Raise the training revision for a retrain, and restore it if the retrain is not released.

``training.yaml`` holds the revision, ``.cache/flows/retrain.json`` the last retrain. A retrain that
was killed, or failed once or twice, continues in the next run. One that was rejected, cancelled, or
failed MOST_FAILURES times is not repeated until there are twice as many new images.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from flows.state import memory_folder
from irgen.files.atomic import write_bytes
from irgen.files.records import read_json, write_json
from irgen.params import TRAINING_FILE, read_training_revision

MOST_FAILURES = 3  # of the stages; then the retrain is undone
TEXT = """\
# Models are trained on the images that the source held at this revision; images first seen later
# join the database only. The flow retrain raises it; by hand: set it, then run dvc repro.
revision: {revision}
"""


@dataclass(frozen=True, kw_only=True)
class Retrain:
    """A retrain from the training revision ``before`` to ``revision``; the number of ``new`` images
    at its start, its state, and the number of failures of its stages."""

    before: int
    revision: int
    new: int
    state: Literal["running", "released", "rejected", "failed"]
    failures: int = 0


WHY_NOT = {
    "rejected": "was rejected by the gate, or cancelled",
    "failed": f"failed {MOST_FAILURES} times",
}


def read(root: Path) -> int:
    """Return the training revision; 1 if the project does not set it. Raises ParamsError if it is
    not a whole number."""
    revision = read_training_revision(root)
    return 1 if revision is None else revision


def write(root: Path, revision: int) -> None:
    """Write the training revision, whole or not at all."""
    write_bytes(root / TRAINING_FILE, TEXT.format(revision=revision).encode())


def last_retrain(root: Path) -> Retrain | None:
    """Return the latest retrain; None if there was none."""
    path = _note(root)
    return Retrain(**read_json(path)) if path.exists() else None


def begin(root: Path, revision: int, new: int) -> Retrain:
    """Note a retrain, then raise the training revision. After a kill between the two, the next run
    raises it."""
    retrain = Retrain(before=read(root), revision=revision, new=new, state="running")
    _write_note(root, retrain)
    write(root, revision)
    return retrain


def running_retrain(root: Path) -> Retrain | None:
    """Return the retrain that has not ended; None if somebody has changed the training revision
    since."""
    retrain = last_retrain(root)
    if retrain and retrain.state == "running" and read(root) == retrain.revision:
        return retrain
    return None


def end(root: Path, *, released: bool) -> bool:
    """End the running retrain, if there is one; if it was not released, restore the training
    revision. Return whether it was restored."""
    retrain = running_retrain(root)
    if retrain is None:
        return False
    if released:
        _write_note(root, replace(retrain, state="released"))
    else:
        _restore(root, replace(retrain, state="rejected"))
    return not released


def count_failure(root: Path) -> bool:
    """Count a failed stage of the running retrain. After MOST_FAILURES, restore the training
    revision. Return whether it was restored."""
    retrain = running_retrain(root)
    if retrain is None:
        return False
    retrain = replace(retrain, failures=retrain.failures + 1)
    if retrain.failures < MOST_FAILURES:
        _write_note(root, retrain)
        return False
    _restore(root, replace(retrain, state="failed"))
    return True


def find_objection(root: Path, revision: int, new: int) -> str:
    """Return the reason against a retrain up to ``revision``, with ``new`` images since training;
    empty if there is none."""
    if revision <= read(root) and running_retrain(root) is None:
        return f"the training covers revision {revision} already"
    retrain = last_retrain(root)
    if retrain and retrain.state in WHY_NOT and new < 2 * retrain.new:
        return (
            f"a retrain up to revision {retrain.revision}, with {retrain.new} new images, "
            f"{WHY_NOT[retrain.state]}; the next is due at {2 * retrain.new}, there are {new}"
        )
    return ""


def _restore(root: Path, retrain: Retrain) -> None:
    write(root, retrain.before)
    _write_note(root, retrain)


def _write_note(root: Path, retrain: Retrain) -> None:
    write_json(_note(root), asdict(retrain))


def _note(root: Path) -> Path:
    return memory_folder(root) / "retrain.json"
