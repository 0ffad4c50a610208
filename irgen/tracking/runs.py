"""Turn run logs into MLflow runs: a run for each build, and one for each of its stages in an
experiment beside.

A replay can stop anywhere and be repeated: it looks runs up by their tags before it creates them,
metrics have their own time and step (MLflow keeps equal ones once), and the run log's state says
how many records were sent.
"""

import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irgen.tracking import descriptions, run_log, uploads
from irgen.tracking.descriptions import StageRun
from irgen.tracking.locations import COMPARISONS, DRIFT, STAGES, store_key
from irgen.tracking.mlflow_store import (
    find_experiment,
    find_run,
    quote,
    run_link,
    set_tags,
    source_tags,
)
from irgen.tracking.provenance import was_killed
from irgen.tracking.run_log import OUTCOMES, TABLES, TRIAL, Record, safe_name
from irgen.tracking.stage_facts import REPORTS

if TYPE_CHECKING:
    from irgen.tracking.mlflow_store import MlflowClient, Run

BUILD, COMPARISON, LOG = "irgen.parent_of", "irgen.comparison_of", "irgen.tracking.run_log"
MONITOR = "irgen.monitor"
MONITOR_NOTE = "Drift and quality of the database over the revisions of its data (the step)."
OF_A_STAGE = ("irgen.stage", "dvc.stage_hash")  # tags its build does not have
NOTE, NAME, PARENT = "mlflow.note.content", "mlflow.runName", "mlflow.parentRunId"


@dataclass(frozen=True)
class Target:
    """A catalogue's experiments in a store: that of the builds, ``name``, and those beside it."""

    client: "MlflowClient"
    root: Path
    name: str

    def experiment(self, part: str = "") -> str:
        """Return an experiment's id; create the experiment if there is none."""
        return find_experiment(self.client, self.root, "/".join(filter(None, [self.name, part])))


def replay(
    client: "MlflowClient", root: Path, path: Path, records: list[Record], *, live: bool
) -> bool:
    """Log the records of the run log ``path`` that MLflow lacks; return whether it has all.

    ``live``: more records can come. If not, and the run log has no end, its stage was killed.
    """
    begin, end = records[0], records[-1] if records[-1]["kind"] == "end" else None
    state, target = run_log.read_state(path), Target(client, root, records[0]["experiment"])
    sent = state if state.get("store") == store_key(root) else {}
    if live and sent.get("records") == len(records):
        return False
    is_whole = begin["stage"] in (TABLES, TRIAL, OUTCOMES)
    if is_whole and end is None:
        return False
    if end is None and not live:
        end = {"status": "KILLED", "time": records[-1]["time"]}
    part, is_build = "", True
    if begin["stage"] in (TABLES, TRIAL):
        part, is_build = COMPARISONS, False
        run = _replay_comparison(target, path, records)
    elif begin["stage"] == OUTCOMES:
        run = _replay_outcomes(target, path, records)
    else:
        part = STAGES
        run = _replay_stage(target, path, records, end, sent)
    build = find_build(target, begin["build"]) if is_build else None
    running = build is not None and _finish_build(target, build, path.parent, begin) == "RUNNING"
    run_log.write_state(
        path,
        done=end is not None and not running,
        sent=end is not None,
        store=store_key(root),
        experiment=target.experiment(part),
        run=run,
        build=[target.experiment(), build.info.run_id] if build else None,
        records=len(records),
    )
    if end is not None:
        shutil.rmtree(run_log.copies_folder(path), ignore_errors=True)
    return end is not None


def _replay_stage(
    target: Target, path: Path, records: list[Record], end: Record | None, sent: Record
) -> str:
    """Log a stage's records to its run, and what matters most to its build's; return the id of its
    run. ``sent``: the run log's state if it is of this store, else empty."""
    begin, client = records[0], target.client
    if sent.get("sent"):
        return sent["run"]
    build = find_or_create_build(target, begin)
    run = sent.get("run")
    if run is None:
        run = _find_or_create_stage(target, build, path, begin)
        uploads.log_params(client, run, begin["params"])
    new = records[sent.get("records", 0) :]
    uploads.log_records(client, run, new)
    if end is not None:
        _log_end(client, run, build, path, begin, end)
        log_to_build(target, build, end)
        if end.get("summary"):
            _log_curves(client, build, path.parent)
    return run


def _log_curves(client: "MlflowClient", build: str, home: Path) -> None:
    """Log the curves of a build's trainings to its run, after its quality: MLflow shows metrics in
    the order in which they come."""
    for path in sorted(home.glob("*.jsonl"), key=lambda path: path.stat().st_mtime_ns):
        records = run_log.read(path)
        curves = uploads.select_curves(records[0]["stage"], records) if records else []
        uploads.log_records(client, build, curves)


def _replay_outcomes(target: Target, path: Path, records: list[Record]) -> str:
    """Tag a build's run with the outcome of each stage (ran, skipped, …) and with the run that made
    its results. Log what the stages that did not run would have logged. Return the build's run."""
    begin, end = records[0], records[-1]
    build = find_or_create_build(target, begin)
    for stage, outcome in begin["outcomes"].items():
        target.client.set_tag(build, f"irgen.outcome.{stage}", outcome)
        if run := _find_finished_run(target, stage, begin["hashes"][stage]):
            target.client.set_tag(build, f"irgen.results.{stage}", run)
    for file in end["files"]:
        uploads.log_file(target.client, build, path, file, begin["max_bytes"])
    log_to_build(target, build, end)
    return build


def _find_finished_run(target: Target, stage: str, stage_hash: str | None) -> str | None:
    """Return the id of the latest run that finished the stage with these inputs."""
    if not stage_hash:
        return None
    tags = {"dvc.stage_hash": stage_hash, "irgen.stage": stage}
    run = find_run(target.client, target.experiment(STAGES), tags, status="FINISHED")
    return run.info.run_id if run else None


def _replay_comparison(target: Target, path: Path, records: list[Record]) -> str:
    """Log a comparison's tables to its run, or a trial to a run below that; return the run's id."""
    begin, end, client = records[0], records[-1], target.client
    above = _find_or_create_comparison(target, begin)
    run = above
    if begin["stage"] == TRIAL:
        tags = begin["tags"] | source_tags("irgen compare") | {PARENT: above}
        tags |= {NAME: begin["tags"]["irgen.trial"], LOG: path.parent.name}
        run = _find_or_create(target, COMPARISONS, LOG, tags, begin["time"])
        uploads.log_params(client, run, begin["all_params"])
    uploads.log_records(client, run, records)
    for file in end["files"]:
        uploads.log_file(client, run, path, file, begin["max_bytes"])
    client.set_terminated(run, "FINISHED", end["time"])
    return run


def _find_or_create_comparison(target: Target, begin: Record) -> str:
    comparison = begin["tags"]["irgen.comparison"]
    tags = {COMPARISON: comparison, NAME: f"comparison {comparison}"} | source_tags("irgen compare")
    return _find_or_create(target, COMPARISONS, COMPARISON, tags, begin["time"])


def _find_or_create(target: Target, part: str, key: str, tags: dict[str, str], started: int) -> str:
    """Return the id of the run with the same tag ``key``; create it if there is none."""
    experiment = target.experiment(part)
    run = find_run(target.client, experiment, {key: tags[key]})
    run = run or target.client.create_run(experiment, start_time=started, tags=tags)
    return run.info.run_id


def find_build(target: Target, build: str) -> "Run | None":
    """Return the run of a build."""
    tags = {BUILD: safe_name(build)}
    return find_run(target.client, target.experiment(), tags) if build else None


def find_or_create_build(target: Target, begin: Record) -> str:
    """Return the id of a build's run. ``begin``: the first record of any of its run logs."""
    run = find_build(target, begin["build"])
    if run is None:
        tags = {key: value for key, value in begin["tags"].items() if key not in OF_A_STAGE}
        tags |= {BUILD: safe_name(begin["build"])} | source_tags("irgen")
        tags[NAME] = descriptions.name_build(target.name, tags, begin["time"])
        run = target.client.create_run(target.experiment(), start_time=begin["time"], tags=tags)
    logged = run.data.params
    missing = {key: value for key, value in begin["all_params"].items() if key not in logged}
    uploads.log_params(target.client, run.info.run_id, missing)
    return run.info.run_id


def _find_or_create_stage(target: Target, build: str, path: Path, begin: Record) -> str:
    tags = begin["tags"] | source_tags(f"irgen {begin['stage']}") | {PARENT: build}
    tags |= {LOG: f"{path.parent.name}/{path.stem}", "irgen.build": path.parent.name}
    tags[NAME] = f"{path.stem} · {descriptions.format_time(begin['time'])}"
    return _find_or_create(target, STAGES, LOG, tags, begin["time"])


def _log_end(
    client: "MlflowClient", run: str, build: str, path: Path, begin: Record, end: Record
) -> None:
    """Log a stage's files (reports go to its build), tables and error, and close its run."""
    for file in end.get("files", []):
        owner = build if file["name"].startswith(REPORTS) else run
        uploads.log_file(client, owner, path, file, begin["max_bytes"])
    uploads.log_tables(client, run, end.get("tables", []))
    if end.get("error"):
        client.set_tag(run, "irgen.error", end["error"][:5000])
    client.set_terminated(run, end["status"], end["time"])


def log_to_build(target: Target, build: str, end: Record) -> None:
    """Log the tables, metrics and tags of a stage's end to its build's run. Add drift and quality
    to the catalogue's monitor."""
    uploads.log_tables(target.client, build, end.get("tables", []))
    for name, value in end.get("summary", {}).items():  # one by one: a batch loses its order
        uploads.log_metrics(target.client, build, {name: value}, time=end["time"], step=0)
    set_tags(target.client, build, end.get("build_tags", {}))
    if end.get("monitor"):
        _log_to_monitor(target, end["time"], **end["monitor"])


def _log_to_monitor(target: Target, time: int, step: int, values: dict[str, float]) -> None:
    """Log ``values`` of a data revision (``step``) to the catalogue's monitor, one run over all
    revisions; skip those that it has."""
    tags = {MONITOR: "true", NAME: f"drift of {target.name}", NOTE: MONITOR_NOTE}
    run = _find_or_create(target, DRIFT, MONITOR, tags | source_tags("irgen"), time)
    new = {}
    for name, value in values.items():
        history = target.client.get_metric_history(run, uploads.format_name(name))
        logged = [metric for metric in history if metric.step == step]
        if not logged or max(logged, key=lambda metric: metric.timestamp).value != value:
            new[name] = value
    uploads.log_metrics(target.client, run, new, time=time, step=step)
    set_tags(target.client, run, {"irgen.data_revision": str(step)} if new else {})
    target.client.set_terminated(run, "FINISHED", time)


def _finish_build(target: Target, run: "Run", home: Path, begin: Record) -> str:
    """Bring the status, the name and the description of a build's ``run`` up to date. Return the
    status: RUNNING while a stage or the process above them runs, FAILED if the last attempt of a
    stage did, KILLED if a stage was, else FINISHED."""
    latest, client = _read_latest(home), target.client
    statuses = {status for status, _ in latest.values()}
    statuses |= {"KILLED"} if was_killed(target.root, begin.get("owner")) else set()
    worst = next((status for status in ("FAILED", "KILLED") if status in statuses), "FINISHED")
    if "RUNNING" in statuses or (worst != "FAILED" and run_log.is_build_running(home)):
        status = "RUNNING"
        client.update_run(run.info.run_id, status=status)
    else:
        status = worst
        client.set_terminated(run.info.run_id, status, max(time for _, time in latest.values()))
    stages, data = _list_stages(target, home.name), run.data
    note = descriptions.describe_build(target.name, data.tags, data.metrics, stages)
    title = descriptions.name_build(target.name, data.tags, run.info.start_time)
    new = {key: text for key, text in ((NOTE, note), (NAME, title)) if data.tags.get(key) != text}
    set_tags(client, run.info.run_id, new)
    return status


def _list_stages(target: Target, build: str) -> list[StageRun]:
    """Return the runs of a build's stages, first one first."""
    experiment = target.experiment(STAGES)
    runs = target.client.search_runs(
        [experiment],
        f"tags.`irgen.build` = '{quote(build)}'",
        order_by=["attributes.start_time ASC"],
        max_results=100,
    )
    return [
        StageRun(
            name=run.data.tags[LOG].rpartition("/")[2],
            status=run.info.status,
            minutes=max((run.info.end_time or 0) - run.info.start_time, 0) / 60_000,
            address=run_link(experiment, run.info.run_id),
            error=run.data.tags.get("irgen.error", ""),
        )
        for run in runs
    ]


def _read_latest(home: Path) -> dict[str, tuple[str, int]]:
    """Return status and time of the latest attempt of each stage of a build."""
    latest: dict[str, tuple[int, str, int]] = {}
    for path in home.glob("*.jsonl"):
        stage, _, attempt = path.stem.partition("-")
        with suppress(FileNotFoundError):
            records = run_log.read(path)
            if len(records) > 1 or (records and not records[0].get("runs_always")):
                status = _read_status(path, records[-1])
                run = (int(attempt or 1), status, records[-1]["time"])
                latest[stage] = max(latest.get(stage, run), run)
    return {stage: (status, time) for stage, (_, status, time) in latest.items()}


def _read_status(path: Path, last: dict[str, Any]) -> str:
    if last["kind"] == "end":
        return last["status"]
    return "RUNNING" if run_log.has_writer(path) else "KILLED"
