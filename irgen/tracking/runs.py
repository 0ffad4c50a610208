"""Turn run logs into MLflow runs: a run for each stage, below the run of its build.

A replay can stop anywhere and be repeated: it looks runs up by their tags before it creates them,
metrics have their own time and step (MLflow keeps equal ones once), and the run log's state says
how many records were sent.
"""

import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irgen.tracking import run_log, uploads
from irgen.tracking.locations import store_key
from irgen.tracking.mlflow_store import find_experiment, find_run, source_tags
from irgen.tracking.run_log import OUTCOMES, TABLES, Record, safe_name

if TYPE_CHECKING:
    from irgen.tracking.mlflow_store import MlflowClient, Run

BUILD, COMPARISON, LOG = "irgen.parent_of", "irgen.comparison_of", "irgen.tracking.run_log"
MONITOR = "irgen.monitor"
MONITOR_NOTE = "Drift and quality of the database over the revisions of its data (the step)."
OF_A_STAGE = ("irgen.stage", "dvc.stage_hash")  # tags its build does not have


def replay(
    client: "MlflowClient", root: Path, path: Path, records: list[Record], *, live: bool
) -> bool:
    """Log the records of the run log ``path`` that MLflow lacks; return whether it has all.

    ``live``: more records can come. If not, and the run log has no end, its stage was killed.
    """
    begin, end = records[0], records[-1] if records[-1]["kind"] == "end" else None
    state, key = run_log.read_state(path), store_key(root)
    if live and state.get("store") == key and state["records"] == len(records):
        return False
    experiment = find_experiment(client, root, begin["experiment"])
    if begin["stage"] in (TABLES, OUTCOMES):
        if end is None:
            return False
        replay_group = _replay_comparison if begin["stage"] == TABLES else _replay_outcomes
        run = replay_group(client, experiment, path, records)
    else:
        if end is None and not live:
            end = {"status": "KILLED", "time": records[-1]["time"]}
        sent = state if state.get("store") == key else {}
        run = _replay_stage(client, experiment, path, records, end, sent)
    run_log.write_state(
        path,
        done=end is not None,
        store=key,
        experiment=experiment,
        run=run,
        records=len(records),
    )
    if end is not None:
        shutil.rmtree(run_log.copies_folder(path), ignore_errors=True)
    return end is not None


def _replay_stage(
    client: "MlflowClient",
    experiment: str,
    path: Path,
    records: list[Record],
    end: Record | None,
    sent: Record,
) -> str:
    """Log a stage's records to its run and to its build's; return the id of its run. ``sent``: the
    run log's state if it is of this store, else empty."""
    begin = records[0]
    build = find_or_create_build(client, experiment, begin)
    run = sent.get("run")
    if run is None:
        run = _find_or_create_stage(client, experiment, build, path, begin)
        uploads.log_params(client, run, begin["params"])
    uploads.log_records(client, run, records[sent.get("records", 0) :])
    if end is not None:
        _log_end(client, run, path, begin, end)
        log_to_build(client, experiment, build, end)
    _set_build_status(client, build, path.parent)
    return run


def _replay_outcomes(
    client: "MlflowClient", experiment: str, path: Path, records: list[Record]
) -> str:
    """Tag a build's run with the outcome of each stage (ran, skipped, restored) and with the run
    that made its results. Log the metrics of stages that did not run. Return the build's run."""
    begin, end = records[0], records[-1]
    build = find_or_create_build(client, experiment, begin)
    for stage, outcome in begin["outcomes"].items():
        client.set_tag(build, f"irgen.outcome.{stage}", outcome)
        if run := _find_finished_run(client, experiment, stage, begin["hashes"][stage]):
            client.set_tag(build, f"irgen.results.{stage}", run)
    log_to_build(client, experiment, build, end)
    _set_build_status(client, build, path.parent)
    return build


def _find_finished_run(
    client: "MlflowClient", experiment: str, stage: str, stage_hash: str | None
) -> str | None:
    """Return the id of the latest run that finished the stage with these inputs."""
    tags = {"dvc.stage_hash": stage_hash or "", "irgen.stage": stage}
    run = find_run(client, experiment, tags, status="FINISHED") if stage_hash else None
    return run.info.run_id if run else None


def _replay_comparison(
    client: "MlflowClient", experiment: str, path: Path, records: list[Record]
) -> str:
    """Log a comparison's tables to its run; return the run's id."""
    begin, end = records[0], records[-1]
    comparison = begin["tags"]["irgen.comparison"]
    run = find_or_create_comparison(client, experiment, comparison, begin["time"])
    uploads.log_records(client, run, records)
    for file in end["files"]:
        uploads.log_file(client, run, path, file, begin["max_bytes"])
    return run


def find_build(client: "MlflowClient", experiment: str, build: str) -> "Run | None":
    """Return the run of a build."""
    return find_run(client, experiment, {BUILD: safe_name(build)}) if build else None


def find_or_create_build(client: "MlflowClient", experiment: str, begin: Record) -> str:
    """Return the id of a build's run. ``begin``: the first record of any of its run logs. The
    builds of a comparison are below the comparison's run."""
    build, params = safe_name(begin["build"]), begin["all_params"]
    run = find_run(client, experiment, {BUILD: build})
    if run is None:
        tags = {key: value for key, value in begin["tags"].items() if key not in OF_A_STAGE}
        commit = tags.get("mlflow.source.git.commit", "")[:7]
        title = tags.get("irgen.trial") or tags.get("dvc.experiment")
        title = title or " ".join(filter(None, ["build", commit, build]))
        if comparison := tags.get("irgen.comparison"):
            parent = find_or_create_comparison(client, experiment, comparison, begin["time"])
            tags["mlflow.parentRunId"] = parent
        tags |= {BUILD: build, "mlflow.runName": title} | source_tags("irgen")
        run = client.create_run(experiment, start_time=begin["time"], tags=tags)
    missing = {key: value for key, value in params.items() if key not in run.data.params}
    uploads.log_params(client, run.info.run_id, missing)
    return run.info.run_id


def find_or_create_comparison(
    client: "MlflowClient", experiment: str, comparison: str, started: int
) -> str:
    """Return the id of the run above a comparison's builds. ``started``: ms since 1970."""
    run = find_run(client, experiment, {COMPARISON: comparison})
    if run is not None:
        return run.info.run_id
    tags = {COMPARISON: comparison, "mlflow.runName": f"comparison {comparison}"}
    run = client.create_run(experiment, start_time=started, tags=tags | source_tags("irgen"))
    client.set_terminated(run.info.run_id, "FINISHED", started)  # nothing runs in it
    return run.info.run_id


def _find_or_create_stage(
    client: "MlflowClient", experiment: str, build: str, path: Path, begin: Record
) -> str:
    name = f"{path.parent.name}/{path.stem}"
    run = find_run(client, experiment, {LOG: name})
    if run is not None:
        return run.info.run_id
    tags = begin["tags"] | source_tags(f"irgen {begin['stage']}")
    tags |= {LOG: name, "irgen.build": path.parent.name}
    tags |= {"mlflow.parentRunId": build, "mlflow.runName": path.stem}
    return client.create_run(experiment, start_time=begin["time"], tags=tags).info.run_id


def _log_end(client: "MlflowClient", run: str, path: Path, begin: Record, end: Record) -> None:
    """Log a stage's files, tables and error, and close its run."""
    for file in end.get("files", []):
        uploads.log_file(client, run, path, file, begin["max_bytes"])
    uploads.log_tables(client, run, end.get("tables", []))
    if end.get("error"):
        client.set_tag(run, "irgen.error", end["error"][:5000])
    client.set_terminated(run, end["status"], end["time"])


def log_to_build(client: "MlflowClient", experiment: str, build: str, end: Record) -> None:
    """Log the tables, metrics and tags of a stage's end to its build's run. Add drift and quality
    to the experiment's monitor."""
    uploads.log_tables(client, build, end.get("tables", []))
    uploads.log_metrics(client, build, end.get("summary", {}), time=end["time"], step=0)
    set_tags(client, build, end.get("build_tags", {}))
    if end.get("monitor"):
        _log_to_monitor(client, experiment, end["time"], **end["monitor"])


def set_tags(client: "MlflowClient", run: str, tags: dict[str, str]) -> None:
    """Set tags of a run."""
    for tag, value in tags.items():
        client.set_tag(run, tag, value)


def _log_to_monitor(
    client: "MlflowClient", experiment: str, time: int, step: int, values: dict[str, float]
) -> None:
    """Log ``values`` of a data revision (``step``) to the experiment's monitor, one run over all
    revisions; skip those that it has."""
    monitor = find_run(client, experiment, {MONITOR: "true"})
    if monitor is None:
        tags = {MONITOR: "true", "mlflow.runName": "monitor", "mlflow.note.content": MONITOR_NOTE}
        monitor = client.create_run(experiment, start_time=time, tags=tags | source_tags("irgen"))
    run, new = monitor.info.run_id, {}
    for name, value in values.items():
        history = client.get_metric_history(run, uploads.format_name(name))
        logged = [metric for metric in history if metric.step == step]
        if not logged or max(logged, key=lambda metric: metric.timestamp).value != value:
            new[name] = value
    uploads.log_metrics(client, run, new, time=time, step=step)
    set_tags(client, run, {"irgen.data_revision": str(step)} if new else {})


def _set_build_status(client: "MlflowClient", build: str, folder: Path) -> None:
    """Set a build's run to RUNNING while a stage runs, to FAILED if the last attempt of a stage
    did, else to FINISHED. The next stage sets it to RUNNING again."""
    latest: dict[str, tuple[int, str, int]] = {}  # by stage: attempt, status, time
    for path in folder.glob("*.jsonl"):
        stage, _, attempt = path.stem.partition("-")
        with suppress(FileNotFoundError):
            records = run_log.read(path)
            if any(record["kind"] != "begin" for record in records):
                status = _read_status(path, records[-1])
                run = (int(attempt or 1), status, records[-1]["time"])
                latest[stage] = max(latest.get(stage, run), run)
    statuses = {status for _, status, _ in latest.values()}
    if "RUNNING" in statuses:
        client.update_run(build, status="RUNNING")
        return
    worst = next((status for status in ("FAILED", "KILLED") if status in statuses), "FINISHED")
    client.set_terminated(build, worst, max(time for _, _, time in latest.values()))


def _read_status(path: Path, last: dict[str, Any]) -> str:
    if last["kind"] == "end":
        return last["status"]
    return "RUNNING" if run_log.has_writer(path) else "KILLED"
