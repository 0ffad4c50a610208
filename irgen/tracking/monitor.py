"""One run an experiment that lives on: drift and quality, data revision by data revision."""

from typing import TYPE_CHECKING, Any

from irgen.tracking.mlflow_store import find_run, metric_name, source_tags

if TYPE_CHECKING:
    from mlflow import MlflowClient

TAG = "irgen.monitor"
NOTE = "Drift and quality of the database over the revisions of its data (the step)."


def follow(client: "MlflowClient", within: str, ending: dict[str, Any]) -> None:
    """Adds what a stage's end says to ``monitor`` (``step``: the data's revision, ``values``) to
    the experiment's monitor; what is there already is not added again."""
    if not (told := ending.get("monitor")):
        return
    from mlflow.entities import Metric

    run = monitor_run(client, within, ending["time"])
    fresh = [
        Metric(name, value, ending["time"], told["step"])
        for name, value in ((metric_name(key), value) for key, value in told["values"].items())
        if not _is_told(client, run, name, value, told["step"])
    ]
    if fresh:
        client.log_batch(run, metrics=fresh)
        client.set_tag(run, "irgen.data_revision", str(told["step"]))


def monitor_run(client: "MlflowClient", within: str, started: int) -> str:
    """The id of the experiment's monitor; made if need be, as of ``started`` (ms since 1970)."""
    found = find_run(client, within, {TAG: "true"})
    if found is not None:
        return found.info.run_id
    tags = {TAG: "true", "mlflow.runName": "monitor", "mlflow.note.content": NOTE}
    tags |= source_tags("irgen")
    return client.create_run(within, start_time=started, tags=tags).info.run_id


def _is_told(client: "MlflowClient", run: str, name: str, value: float, step: int) -> bool:
    """Whether the latest value of that revision is this one."""
    known = [each for each in client.get_metric_history(run, name) if each.step == step]
    return bool(known) and max(known, key=lambda each: each.timestamp).value == value
