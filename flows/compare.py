"""The flow ``compare``: a grid of parameters, each point a DVC experiment, all under one run in
MLflow. It works in a copy of the project, so that updates go on meanwhile."""

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
from irgen import recording
from irgen.workspace import Workspace

TIMEOUT_SECONDS = 7 * 86_400.0


@flow(name="compare", persist_result=False, result_serializer="json")
def compare(parameters: dict[str, list[Any]], root: str = ".") -> State[Any]:
    """Runs the pipeline once for each point of a grid, on the data as it is here now.

    parameters: for each key of params.yaml, such as tokenizer.levels, the values to try. root: the
    project's folder. The experiments are in `dvc exp show` as they end, a table of them is left as
    an artifact; nothing that is served changes.
    """
    place, log = project.find(root), get_run_logger()
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
    return grid.telling(recording.quality(Workspace.at(there)))
