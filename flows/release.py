"""The gate and the release, by ``irgen release``, and what it decided."""

import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

from flows import process, stage
from flows.process import Ended
from irgen.errors import ReleaseError

TIMEOUT_SECONDS = 6 * 3600.0
KEPT = 3  # the exit status of a candidate that the gate keeps back


@dataclass(frozen=True, kw_only=True)
class Decision:
    """``released``: it is what is served now, newly so or already. ``about``: what ``irgen
    release --json`` said of it."""

    released: bool
    about: dict[str, Any]


def has_index(root: Path) -> bool:
    """Whether the pipeline has made an index."""
    return (root / "data" / "index").is_dir()


def run(root: Path, *, build: str, tell: Callable[[str], None]) -> Decision:
    """Judges data/index against the champion and releases it if it is fit; doing it again changes
    nothing. Raises ReleaseError with what the command said if it failed."""
    return _decision(_ended(root, build, tell))


def _ended(
    root: Path,
    build: str,
    tell: Callable[[str], None],
    *options: str,
    begun: Callable[[int], None] = lambda group: None,
) -> Ended:
    return process.run(
        [sys.executable, "-m", "irgen", "release", "--json", *options],
        root=root,
        tell=lambda line: None if line.startswith("{") else tell(line),
        timeout=TIMEOUT_SECONDS,
        settings=stage.settings(build),
        begun=begun,
    )


def _decision(ended: Ended) -> Decision:
    if ended.timed_out or ended.status not in (0, KEPT):
        raise ReleaseError(f"release failed: {stage.reason(ended.lines)}")
    return Decision(released=ended.status == 0, about=_said(ended.lines))


class Ahead:
    """The release as a process that is started before its time, since it takes seconds to load
    MLflow: it does nothing until it is asked to. Leaving the block, one that was not asked ends."""

    def __init__(self, root: Path, build: str) -> None:
        self.root, self.build = root, build
        self.tell: Callable[[str], None] = lambda line: None
        self.folder = tempfile.TemporaryDirectory(prefix="irgen-")
        self.word = Path(self.folder.name) / "word"
        self.thread: Thread | None = None
        self.ended: Ended | None = None
        self.groups: list[int] = []  # of the processes that were started

    def __enter__(self) -> "Ahead":
        return self

    def __exit__(self, *_: object) -> None:
        self.folder.cleanup()
        if self.thread is not None:
            self.thread.join()

    def start(self) -> None:
        """Starts the process, if there is an index to be released."""
        if not has_index(self.root):
            return
        self.word.unlink(missing_ok=True)  # of a pass before
        self.ended = None
        self.thread = Thread(target=self._wait, daemon=True)
        self.thread.start()

    def _wait(self) -> None:
        self.ended = _ended(
            self.root,
            self.build,
            lambda line: self.tell(line),
            *("--after", str(self.word)),
            begun=self.groups.append,
        )

    def run(self, tell: Callable[[str], None]) -> Decision:
        """The release, as ``run`` has it, by the process if there is one that waits. If this is
        interrupted the process is killed: it has no right to the project any more."""
        thread, self.thread = self.thread, None
        if thread is None or not thread.is_alive():
            return run(self.root, build=self.build, tell=tell)
        self.tell = tell
        try:
            self.word.touch()
            thread.join()
        except BaseException:
            with suppress(ProcessLookupError):
                os.killpg(self.groups[-1], signal.SIGKILL)
            raise
        assert self.ended is not None, "its thread has come to its end"
        return _decision(self.ended)


def _said(lines: tuple[str, ...]) -> dict[str, Any]:
    for line in reversed(lines):
        if line.startswith("{"):
            return json.loads(line)
    raise ReleaseError(f"irgen release --json said nothing: {' / '.join(lines)}")
