"""The flow ``retrain``: new models, trained on all images there are, if they are better."""

from typing import Any

from prefect import flow
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed, State

from flows import cutoff, project, publication, run
from irgen.catalog import manifest
from irgen.files import read_json


@flow(name="retrain", persist_result=False, result_serializer="json")
def retrain(root: str = ".", force: bool = False) -> State[Any]:
    """Moves the training cut-off to the newest images, runs the pipeline and publishes the index
    if the gate lets it pass; if not, the cut-off and the models go back to what they were.

    root: the project's folder. force: also if the training covers all images already, or a retrain
    was turned down and not many images have come since. Waits for a run that has the project.
    """
    place, log = project.find(root), get_run_logger()
    with run.turn(place, "retrain", log, wait=True):
        revision, _ = manifest.read_revision(place / "data" / "download")
        verdict = place / "data" / "drift" / "verdict.json"
        new = read_json(verdict)["new"] if verdict.is_file() else 0
        objection = cutoff.objection(place, revision, new)
        if objection and not force:
            return Completed(name="Unneeded", message=objection)
        if cutoff.underway(place) is None:
            before = cutoff.begin(place, revision, new).before
            log.info("training cut-off: revision %s → %s", before, revision)
        return publication.carry_through(place, build=str(flow_run.id))


retrain.on_cancellation(run.take_back)
