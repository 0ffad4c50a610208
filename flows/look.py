"""Look at the source in a process of its own, which can be given up: ``python -m flows.look``."""

import sys
from collections.abc import Callable
from pathlib import Path

from flows import process, stage
from irgen.errors import IrgenError, SourceError

TIMEOUT_SECONDS = 3600.0  # enough to list a bucket of a hundred million objects
CHANGED, UNCHANGED = "the source has changed", "the source is as it was"


def has_changed(root: Path, *, build: str, log: Callable[[str], None]) -> bool:
    """Tell whether the source may differ from the project's copy, by its listing alone. Raises
    SourceError, with the source's own words, if it cannot be listed."""
    ended = process.run(
        [sys.executable, "-m", "flows.look"],
        root=root,
        log=log,
        timeout=TIMEOUT_SECONDS,
        settings=stage.environment(build),
    )
    if ended.timed_out:
        raise SourceError(f"the source was not listed within {TIMEOUT_SECONDS:g} seconds")
    if ended.status or ended.lines[-1] not in (CHANGED, UNCHANGED):
        raise SourceError(stage.find_reason(ended.lines))
    return ended.lines[-1] == CHANGED


def main() -> int:
    """Look at the source of the project in the working folder, and print the result."""
    from irgen.params import load  # the flow that starts this does not need them
    from irgen.stages import download
    from irgen.workspace import Workspace

    try:
        changed = download.look(load(Path("params.yaml")), Workspace.at(Path()))
    except IrgenError as error:
        print(f"look: {' '.join(str(error).split())}")
        return 2
    print(CHANGED if changed else UNCHANGED)
    return 0


if __name__ == "__main__":
    sys.exit(main())
