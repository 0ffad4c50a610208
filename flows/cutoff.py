"""The training cut-off of ``params.yaml``: moved for a retrain, and back if that came to nothing.

What is under way or was tried is noted in ``retrain.json``: a retrain that was killed, or failed
once or twice, is gone on with; one that was turned down, cancelled by somebody, or fails for good,
is not tried again before there are twice as many new images.
"""

import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import yaml

from flows.project import memory
from irgen.errors import ParamsError
from irgen.files import read_json, write_bytes, write_json

LINE = re.compile(
    r"^(catalog:[^\n]*\n(?:[ \t#][^\n]*\n|\n)*?[ \t]+training_revision:[ \t]*)(\d+)", re.M
)
INLINE = re.compile(r"^(catalog:[ \t]*\{[^}\n]*?\btraining_revision:[ \t]*)(\d+)", re.M)
FAILURES = 3  # of the stages, after which a retrain is given up


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """A retrain: from which cut-off to which, how many images were new then, what came of it, and
    how often its stages have failed."""

    before: int
    revision: int
    new: int
    state: Literal["running", "released", "rejected", "failed"]
    failures: int = 0


TURNED_DOWN = {
    "rejected": "was turned down by the gate, or cancelled",
    "failed": f"failed {FAILURES} times",
}


def read(root: Path) -> int:
    """``catalog.training_revision`` as it stands. Raises ParamsError if it is not there."""
    text = (root / "params.yaml").read_text(encoding="utf-8")
    return int(_find(text)[2])


def move(root: Path, revision: int) -> None:
    """Sets ``catalog.training_revision``; nothing else of ``params.yaml`` changes."""
    path = root / "params.yaml"
    text = path.read_text(encoding="utf-8")
    found = _find(text)
    changed = text[: found.start(2)] + str(revision) + text[found.end(2) :]
    assert yaml.safe_load(changed)["catalog"]["training_revision"] == revision
    write_bytes(path, changed.encode())


def _find(text: str) -> "re.Match[str]":
    found = LINE.search(text) or INLINE.search(text)
    if found is None:
        raise ParamsError("params.yaml: catalog: training_revision is not there as a plain number")
    return found


def last(root: Path) -> Attempt | None:
    """The last retrain that was begun; None if there was none."""
    path = _note(root)
    return Attempt(**read_json(path)) if path.exists() else None


def begin(root: Path, revision: int, new: int) -> Attempt:
    """Notes a retrain and moves the cut-off, in this order: a kill between leaves it to be moved
    by the next attempt."""
    attempt = Attempt(before=read(root), revision=revision, new=new, state="running")
    write_json(_note(root), asdict(attempt))
    move(root, revision)
    return attempt


def underway(root: Path) -> Attempt | None:
    """The retrain that was begun and has not come to its end, if the cut-off is still its own."""
    attempt = last(root)
    if attempt and attempt.state == "running" and read(root) == attempt.revision:
        return attempt
    return None


def end(root: Path, *, released: bool) -> bool:
    """Ends the retrain that is under way, if one is: if it was not released, the cut-off goes back
    to where it was. Returns whether it did."""
    attempt = underway(root)
    if attempt is None:
        return False
    if released:
        write_json(_note(root), asdict(replace(attempt, state="released")))
    else:
        _take_back(root, replace(attempt, state="rejected"))
    return not released


def failed(root: Path) -> bool:
    """Notes that a stage failed for good while a retrain was under way. The last of FAILURES ends
    the retrain: the cut-off goes back to where it was. Returns whether it did."""
    attempt = underway(root)
    if attempt is None:
        return False
    attempt = replace(attempt, failures=attempt.failures + 1)
    if attempt.failures < FAILURES:
        write_json(_note(root), asdict(attempt))
        return False
    _take_back(root, replace(attempt, state="failed"))
    return True


def _take_back(root: Path, attempt: Attempt) -> None:
    move(root, attempt.before)
    write_json(_note(root), asdict(attempt))


def objection(root: Path, revision: int, new: int) -> str:
    """Why a retrain up to ``revision``, with ``new`` images unknown to the training, is of no use;
    empty if it is of use."""
    if revision <= read(root) and underway(root) is None:
        return f"the training covers revision {revision} already"
    attempt = last(root)
    if attempt and attempt.state in TURNED_DOWN and new < 2 * attempt.new:
        return (
            f"a retrain up to revision {attempt.revision}, with {attempt.new} new images, "
            f"{TURNED_DOWN[attempt.state]}; the next is due at {2 * attempt.new}, there are {new}"
        )
    return ""


def _note(root: Path) -> Path:
    return memory(root) / "retrain.json"
