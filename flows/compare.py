"""The flow ``compare``: the comparison that ``experiments/comparison.yaml`` plans, or a grid of
parameters, each point a DVC experiment in a copy of the project; all points under one run in
MLflow. Neither changes what is served, and updates go on meanwhile."""

import re
import sys
import time
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed, State

from flows import grid, pages, process, project, publication, stage, workcopy
from flows.grid import Point
from flows.stage import StageError
from irgen.errors import ParamsError
from irgen.study.plan import TABLES, load_plan
from irgen.tracking import recorder
from irgen.workspace import Workspace

TIMEOUT_SECONDS = 7 * 86_400.0


@flow(name="compare", persist_result=False, result_serializer="json")
def compare(
    parameters: dict[str, list[Any]] | None = None,
    sets: list[str] | None = None,
    ablations: bool = False,
    root: str = ".",
) -> State[Any]:
    """Runs what the plan compares (`irgen compare`), or the pipeline once for each point of a grid,
    on the data as it is here now; nothing that is served changes.

    parameters: a grid: for each key of params.yaml, such as tokenizer.levels, the values to try;
    the experiments are in `dvc exp show` as they end, a table of them is left as an artifact. None:
    the plan's comparison; its tables are left as artifacts. sets: of the plan's, which; by default
    all. ablations: the plan's ablations too. root: the project's folder.
    """
    place, log = project.find(root), get_run_logger()
    if parameters is not None and (sets or ablations):
        raise ParamsError("compare: give parameters (a grid), or sets and ablations of the plan")
    if parameters is None:
        return planned(place, sets or [], ablations, log)
    points = grid.points(parameters, place / "params.yaml")
    rows, failed = [], []
    with workcopy.of(place, f"compare-{flow_run.id}") as there:
        for number, point in enumerate(points, 1):
            name = f"{flow_run.name}-{number}"
            log.info("%s of %s, %s: %s", number, len(points), name, grid.told(point))
            one = tried.with_options(task_run_name=grid.told(point))
            state = one(place, there, name, point, str(flow_run.id), return_state=True)
            found = state.result(raise_on_failure=False)
            if isinstance(found, Exception):
                failed.append(f"{name}: {found}")
                found = {}
            rows.append({"experiment": name, **point, **found})
            pages.table("comparison", rows, f"{number} of {len(points)} points", log)
    if failed:
        raise StageError("; ".join(failed))
    return Completed(message=f"{len(points)} experiments, in dvc exp show")


def planned(root: Path, sets: list[str], ablations: bool, log: publication.Log) -> State[Any]:
    """The comparison of the plan. Raises StageError with its last words if it failed; the tables
    that it has made are left all the same."""
    plan, started = load_plan(root), time.time()
    options = [*sets, *(["--ablations"] if ablations else [])]
    ended = process.run(
        [sys.executable, "-m", "irgen", "compare", *options],
        root=root,
        tell=log.info,
        timeout=TIMEOUT_SECONDS,
        settings=stage.settings(""),
    )
    for name in sets or plan.sets:
        made = root / TABLES / name / "comparison.md"
        if made.is_file() and (made.stat().st_mtime >= started or not ended.status):
            key = re.sub(r"[^a-z0-9]+", "-", f"comparison-{name}".lower()).strip("-")
            pages.markdown(key, made.read_text(encoding="utf-8"), f"Comparison of {name}", log)
    if ended.status or ended.timed_out:
        raise StageError(stage.reason(ended.lines))
    return Completed(message=f"compared: {', '.join(sets or plan.sets)}")


@task(name="experiment", cache_policy=NO_CACHE, persist_result=False)
def tried(root: Path, there: Path, name: str, point: Point, comparison: str) -> dict[str, float]:
    """Runs one point in the copy ``there``, brings the experiment to the project and returns the
    metrics to tell points apart by. Raises StageError with the last words of what failed."""
    log = get_run_logger()
    build = f"{comparison}-{name}"
    settings = stage.settings(build, comparison) | {"DVC_EXP_NAME": name}  # for irgen publish
    ended = process.run(
        workcopy.experiment(there, name, grid.settings(point)),
        root=there,
        tell=log.info,
        timeout=TIMEOUT_SECONDS,
        settings=settings,
    )
    if ended.status or ended.timed_out:
        raise StageError(stage.reason(ended.lines))
    workcopy.bring(there, root, name)
    publication.tracked(there, build, stage.outcomes(ended.lines), log, settings)
    return grid.telling(recorder.quality(Workspace.at(there)))
