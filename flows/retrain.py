"""Flow ``retrain``: train new models on all images, and release them if they are good enough."""

from typing import Any

from prefect import flow
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed, State

from flows import artifacts, lock, state, training_revision
from flows.build import build_and_release
from irgen.catalog import manifest
from irgen.files.records import read_json


@flow(name="retrain", flow_run_name="retrain", persist_result=False, result_serializer="json")
def retrain(root: str = ".", force: bool = False) -> State[Any]:
    """Raise the training revision to the newest images, run the pipeline, and release the index if
    it passes the gate; if not, restore the training revision and models.

    root: the project's folder. force: retrain even if the models were trained on all images, or
    if a retrain was rejected and few images have come since. Waits if another run holds the
    project.
    """
    folder, log = state.find_project(root), get_run_logger()
    with lock.hold_project(folder, "retrain", log, wait=True):
        revision, _ = manifest.read_revision(folder / "data" / "download")
        verdict = folder / "data" / "drift" / "verdict.json"
        new = read_json(verdict)["new"] if verdict.is_file() else 0
        objection = training_revision.find_objection(folder, revision, new)
        if objection and not force:
            artifacts.name_run("not needed", log=log)
            return Completed(name="Unneeded", message=objection)
        if training_revision.running_retrain(folder) is None:
            before = training_revision.begin(folder, revision, new).before
            log.info("training revision: %s → %s", before, revision)
        return build_and_release(folder, build=str(flow_run.id))


retrain.on_cancellation(lock.undo_cancelled_retrain)
