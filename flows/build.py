"""The flow ``build``: the whole pipeline, then the gate and the release."""

from typing import Any

from prefect import flow
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import State

from flows import project, publication, run


@flow(name="build", persist_result=False, result_serializer="json")
def build(root: str = ".", pull: bool = False) -> State[Any]:
    """Brings every stage of the pipeline up to date and publishes the index if it is fit.

    root: the project's folder. pull: take results from DVC's remote where it has them, instead of
    running; for a machine that starts with nothing. Waits for a run that has the project.
    """
    place = project.find(root)
    with run.turn(place, "build", get_run_logger(), wait=True):
        return publication.carry_through(place, build=str(flow_run.id), pull=pull)


build.on_cancellation(run.take_back)
