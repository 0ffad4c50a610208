"""A look at the source, in a process of its own that can be given up: ``python -m flows.look``."""

import sys
from collections.abc import Callable
from pathlib import Path

from flows import process, stage
from irgen.errors import IrgenError, SourceError

TIMEOUT_SECONDS = 3600.0  # a bucket of a hundred million objects is listed in that
CHANGED, UNCHANGED = "the source has changed", "the source is as it was"


def run(root: Path, *, build: str, tell: Callable[[str], None]) -> bool:
    """Whether the source may differ from what the project has, by its listing alone. Raises
    SourceError, with what the source said, if it cannot be looked at."""
    ended = process.run(
        [sys.executable, "-m", "flows.look"],
        root=root,
        tell=tell,
        timeout=TIMEOUT_SECONDS,
        settings=stage.settings(build),
    )
    if ended.timed_out:
        raise SourceError(f"the source was not listed within {TIMEOUT_SECONDS:g} seconds")
    if ended.status or ended.lines[-1] not in (CHANGED, UNCHANGED):
        raise SourceError(stage.reason(ended.lines))
    return ended.lines[-1] == CHANGED


def main() -> int:
    """Looks at the source of the project in the working folder; prints what it found."""
    from irgen.params import load  # which the flow, who starts this, has no use for
    from irgen.stages import download
    from irgen.workspace import Workspace

    try:
        found = download.look(load(Path("params.yaml")), Workspace.at(Path()))
    except IrgenError as error:
        print(f"look: {' '.join(str(error).split())}")
        return 2
    print(CHANGED if found else UNCHANGED)
    return 0


if __name__ == "__main__":
    sys.exit(main())
