"""The gate and the release, by ``irgen release``, and what it decided."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows import process, stage
from irgen.errors import ReleaseError

TIMEOUT_SECONDS = 6 * 3600.0
KEPT = 3  # the exit status of a candidate that the gate keeps back


@dataclass(frozen=True, kw_only=True)
class Decision:
    """``released``: it is what is served now, newly so or already. ``about``: what ``irgen
    release --json`` said of it."""

    released: bool
    about: dict[str, Any]


def run(root: Path, *, build: str, tell: Callable[[str], None]) -> Decision:
    """Judges data/index against the champion and releases it if it is fit; doing it again changes
    nothing. Raises ReleaseError with what the command said if it failed."""
    ended = process.run(
        [sys.executable, "-m", "irgen", "release", "--json"],
        root=root,
        tell=lambda line: None if line.startswith("{") else tell(line),
        timeout=TIMEOUT_SECONDS,
        settings=stage.settings(build),
    )
    if ended.timed_out or ended.status not in (0, KEPT):
        raise ReleaseError(f"release failed: {stage.reason(ended.lines)}")
    return Decision(released=ended.status == 0, about=_said(ended.lines))


def _said(lines: tuple[str, ...]) -> dict[str, Any]:
    for line in reversed(lines):
        if line.startswith("{"):
            return json.loads(line)
    raise ReleaseError(f"irgen release --json said nothing: {' / '.join(lines)}")
