"""Check the source for changes in a separate process, which can be stopped when it takes too long:
``python -m flows.source_check``."""

import sys
from collections.abc import Callable
from pathlib import Path

from flows import process, stage
from irgen.catalog import guard
from irgen.errors import IrgenError, SourceError, format_line
from irgen.files.workspace import Workspace

TIMEOUT_SECONDS = 3600.0  # enough to list a bucket of a hundred million objects
CHANGED, UNCHANGED = "the source has changed", "the source has not changed"


def has_changed(root: Path, *, build: str, log: Callable[[str], None]) -> bool:
    """Tell whether the source may differ from the project's copy, by its listing alone. Raises
    SourceError with the reason if it cannot be listed."""
    result = process.run(
        [sys.executable, "-m", "flows.source_check"],
        root=root,
        log=log,
        timeout=TIMEOUT_SECONDS,
        settings=stage.environment(build),
    )
    if result.timed_out:
        workspace = Workspace.at(root)
        problem = f"the source was not listed within {TIMEOUT_SECONDS:g} seconds"
        folder, cache = workspace.stage("download"), workspace.cache / "download"
        raise SourceError(guard.note_source(folder, cache, problem))
    if result.status or result.lines[-1] not in (CHANGED, UNCHANGED):
        raise SourceError(stage.find_reason(result.lines))
    return result.lines[-1] == CHANGED


def main() -> int:
    """Check the source of the project in the working folder, and print the result."""
    from irgen.params import load  # the flow that starts this does not need them
    from irgen.stages import download

    try:
        changed = download.may_have_changed(load(Path("params.yaml")), Workspace.at(Path()))
    except IrgenError as error:
        print(f"source check: {format_line(str(error))}")
        return 2
    print(CHANGED if changed else UNCHANGED)
    return 0


if __name__ == "__main__":
    sys.exit(main())
