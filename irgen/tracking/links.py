"""A stage that had nothing to do, in its build's run: what it came to when it did run."""

from typing import TYPE_CHECKING, Any

from irgen.tracking.mlflow_store import plain

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

WHY = {
    "skipped": "Nothing that it depends on has changed, so it did not run",
    "restored": "It had run with the same inputs before, so its results were taken from the cache",
}


def link(client: "MlflowClient", run: str, ending: dict[str, Any]) -> None:
    """Makes ``run`` a link to the run that made the stage's results, found by the hash of its lock
    entry: with that run's parameters and last metrics, and a note that leads there.

    If the store has no such run (another store, or a cache that came from elsewhere), the outputs
    by their checksums are all there is to tell. May be done again.
    """
    stage, digest = ending["stage"], ending["tags"].get("dvc.stage_hash", "")
    within = client.get_run(run).info.experiment_id
    made = _made(client, within, stage, digest)
    why = WHY.get(ending["outcome"], ending["outcome"])
    client.log_dict(run, ending.get("outs", []), "outs.json")
    if made is None:
        client.set_tag(run, "mlflow.note.content", f"{why}; the run that made them is not here.")
        return
    _copy(client, made, run)
    client.set_tag(run, "irgen.link", made.info.run_id)
    page = f"#/experiments/{made.info.experiment_id}/runs/{made.info.run_id}"
    client.set_tag(run, "mlflow.note.content", f"{why}: see [the run that made them]({page}).")


def _made(client: "MlflowClient", within: str, stage: str, digest: str) -> "Run | None":
    """The latest run that finished with these inputs, links apart."""
    if not digest:
        return None
    wanted = (
        f"tags.`dvc.stage_hash` = '{plain(digest)}' and tags.`irgen.stage` = '{plain(stage)}' "
        "and attributes.status = 'FINISHED'"
    )
    found = client.search_runs([within], wanted, max_results=100)
    return next((run for run in found if "irgen.outcome" not in run.data.tags), None)


def _copy(client: "MlflowClient", made: "Run", run: str) -> None:
    from mlflow.entities import Metric, Param

    there = client.get_run(run).data
    last = [
        Metric(key, value, made.info.end_time or made.info.start_time, 0)
        for key, value in made.data.metrics.items()
        if key not in there.metrics
    ]
    params = [Param(key, value) for key, value in made.data.params.items()]
    missing = [param for param in params if param.key not in there.params]
    client.log_batch(run, metrics=last[:1000], params=missing[:100])
