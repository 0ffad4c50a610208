"""The flow ``update``: looks at the source, and publishes what has changed; nothing is trained."""

from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed, State

from flows import finished, project, publication, run
from irgen import params


@flow(name="update", persist_result=False)
def update(root: str = ".") -> State[Any]:
    """Looks at the source; if it has changed, or the last run did not come to its end, brings the
    pipeline up to date and publishes the index if it is fit.

    root: the project's folder. If another run has the project, this one is dropped, and that one
    asks for another update when it is through.
    """
    place, log = project.find(root), get_run_logger()
    with run.turn(place, "update", log, wait=False) as turn:
        if not turn.mine:
            return run.dropped(turn, place)
        last = finished.read(place)
        if last and last.key == finished.key(place) and not looked(place):
            if last.settled:
                return Completed(name="Unchanged", message="the source is as it was")
            log.info("the source is as it was; the last run's results are yet to be published")
        return publication.carry_through(place, build=str(flow_run.id))


@task(name="look", task_run_name="look", cache_policy=NO_CACHE, persist_result=False)
def looked(root: Path) -> bool:
    """Whether the source may differ from what is here, by its listing alone. Raises SourceError if
    it cannot be listed."""
    from irgen.catalog.sources import open_source
    from irgen.catalog.sync import look

    settings = params.load(root / "params.yaml").download
    return look(open_source(settings), root / "data" / "download")
