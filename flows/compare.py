"""Flow ``compare``: run the comparison that ``experiments/comparison.yaml`` plans.

It does not touch the served index, and updates can run meanwhile.
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


@flow(name="compare", flow_run_name="compare", persist_result=False, result_serializer="json")
def compare(sets: list[str] | None = None, ablations: bool = False, root: str = ".") -> State[Any]:
    """Run `irgen compare` and create artifacts of its tables, also if a part of it failed.

    sets: which of the plan's sets; by default all. ablations: run the plan's ablations too. root:
    the project's folder. Raises StageError with the command's last words if it failed.
    """
    folder, log, started = find_project(root), get_run_logger(), time.time()
    names = sets or list(load_plan(folder).sets)
    artifacts.name_run(", ".join(names), log=log)
    result = process.run(
        [sys.executable, "-m", "irgen", "compare", *names, *(["--ablations"] if ablations else [])],
        root=folder,
        log=log.info,
        timeout=TIMEOUT_SECONDS,
        settings=stage.environment(""),
    )
    for name in names:
        path = folder / TABLES / name / "comparison.md"
        if path.is_file() and (path.stat().st_mtime >= started or not result.status):
            key = re.sub(r"[^a-z0-9]+", "-", f"comparison-{name}".lower()).strip("-")
            text = path.read_text(encoding="utf-8")
            artifacts.create_markdown(key, text, f"Comparison of {name}", log)
    if result.status or result.timed_out:
        raise StageError(stage.find_reason(result.lines))
    return Completed(message=f"compared: {', '.join(names)}")
