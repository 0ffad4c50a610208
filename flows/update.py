"""The flow ``update``: looks at the source, and publishes what has changed; nothing is trained."""

from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed, State

from flows import finished, guard, look, project, run, stage, warm


@flow(name="update", persist_result=False, result_serializer="json")
def update(root: str = ".") -> State[Any]:
    """Looks at the source; if it has changed, or the last run did not come to its end, brings the
    pipeline up to date and publishes the index if it is fit.

    root: the project's folder. If another run has the project, this one is dropped, and that one
    asks for another update when it is through.
    """
    place, log = project.find(root), get_run_logger()
    with run.turn(place, "update", log, wait=False) as turn:
        if not turn.mine:
            return run.dropped(turn, place, log)
        guard.asked(place)  # whoever asked before now is served by this one
        last, build = finished.read(place), str(flow_run.id)
        with warm.libraries(place, stage.settings(build), "dvc"):  # while the source is listed
            Thread(target=import_module, args=["flows.publication"], daemon=True).start()
            due = last is None or last.key != finished.key(place) or looked(place, build)
            from flows import publication  # loaded meanwhile, with DVC and what else it needs

            if last is None or due:
                return publication.carry_through(place, build=build)
        publication.catch_up(place, build, log)
        if last.settled:
            return Completed(name="Unchanged", message="the source is as it was")
        log.info("the source is as it was; the last run's results are yet to be published")
        return publication.publish(place, build=build)


update.on_cancellation(run.take_back)


@task(name="look", task_run_name="look", cache_policy=NO_CACHE, persist_result=False)
def looked(root: Path, build: str) -> bool:
    """Whether the source may differ from what is here. Not tried again: the next update does."""
    return look.run(root, build=build, tell=get_run_logger().info)
