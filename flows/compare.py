"""The flow ``compare``: run the comparison that ``experiments/comparison.yaml`` plans.

It changes nothing that is served, and updates go on meanwhile.
"""

import re
import sys
import time
from typing import Any

from prefect import flow
from prefect.logging import get_run_logger
from prefect.states import Completed, State

from flows import artifacts, process, stage
from flows.stage import StageError
from flows.state import find_project
from irgen.study.plan import TABLES, load_plan

TIMEOUT_SECONDS = 7 * 86_400.0


@flow(name="compare", persist_result=False, result_serializer="json")
def compare(sets: list[str] | None = None, ablations: bool = False, root: str = ".") -> State[Any]:
    """Run `irgen compare` and leave its tables as artifacts, also those of a comparison that failed
    half way.

    sets: which of the plan's sets; by default all. ablations: run the plan's ablations too. root:
    the project's folder. Raises StageError with the command's last words if it failed.
    """
    folder, log, started = find_project(root), get_run_logger(), time.time()
    names = sets or list(load_plan(folder).sets)
    ended = process.run(
        [sys.executable, "-m", "irgen", "compare", *names, *(["--ablations"] if ablations else [])],
        root=folder,
        log=log.info,
        timeout=TIMEOUT_SECONDS,
        settings=stage.environment(""),
    )
    for name in names:
        path = folder / TABLES / name / "comparison.md"
        if path.is_file() and (path.stat().st_mtime >= started or not ended.status):
            key = re.sub(r"[^a-z0-9]+", "-", f"comparison-{name}".lower()).strip("-")
            text = path.read_text(encoding="utf-8")
            artifacts.leave_markdown(key, text, f"Comparison of {name}", log)
    if ended.status or ended.timed_out:
        raise StageError(stage.find_reason(ended.lines))
    return Completed(message=f"compared: {', '.join(names)}")
