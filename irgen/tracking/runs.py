"""A journal becomes a run in MLflow, a build the parent of its stages' runs.

A replay may stop anywhere and be done again: runs are found by their tags before they are made,
metrics carry their own time and step (a store keeps equal ones once), and what is logged is noted
beside the journal.
"""

import json
import shutil
import warnings
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irgen.files import file_digest
from irgen.tracking import links, monitor, run_log
from irgen.tracking.mlflow_store import experiment, find_run, metric_name, source_tags
from irgen.tracking.provenance import store_key

if TYPE_CHECKING:
    from mlflow import MlflowClient

OF_A_COMPARISON = "tables"  # whose journal is about the comparison itself, no build of it
OF_A_STAGE = ("irgen.stage", "irgen.outcome", "dvc.stage_hash")  # no tags of its build


def replay(
    path: Path, found: list[dict[str, Any]], client: "MlflowClient", home: Path, *, live: bool
) -> bool:
    """Logs the records ``found`` in the journal ``path``, those that are not logged yet.

    Returns whether the run is complete. ``live``: more may come; if not, a journal without an end
    is that of a killed run.
    """
    place = store_key(home)
    begin, known = found[0], run_log.state(path)
    fresh = known.get("store") == place
    if live and fresh and known["records"] == len(found):
        return False
    within = experiment(client, home, begin["experiment"])
    if begin["stage"] == OF_A_COMPARISON:
        return _complete_comparison(path, found, client, within)
    parent = build_run(client, within, begin)
    run, sent = (known["run"], known["records"]) if fresh else (None, 0)
    if run is None:
        run = _child(client, within, parent, path, begin)
        _log_params(client, run, begin["params"])
    _log_metrics(client, run, found[sent:])
    end = found[-1] if found[-1]["kind"] == "end" else None
    if end is None and not live:
        end = {"status": "KILLED", "time": found[-1]["time"]}
    if end is not None:
        _close(client, run, parent, path, begin | end)
        monitor.follow(client, within, end)
    _set_parent_status(client, parent, path.parent)
    run_log.set_state(path, done=end is not None, store=place, run=run, records=len(found))
    if end is not None:
        shutil.rmtree(run_log.keepsakes(path), ignore_errors=True)
    return end is not None


def build_run(client: "MlflowClient", within: str, begin: dict[str, Any]) -> str:
    """The id of the run that stands for a build, in the experiment ``within``; made if need be from
    what the first of its stages says (``build``, ``tags``, ``time``, ``all_params``). A build that
    is a point of a comparison is below the run that stands for that."""
    build = run_log.plain(begin["build"])
    found = find_run(client, within, {"irgen.parent_of": build})
    if found is None:
        shared = {key: value for key, value in begin["tags"].items() if key not in OF_A_STAGE}
        commit = shared.get("mlflow.source.git.commit", "")[:7]
        named = shared.get("irgen.point") or shared.get("dvc.experiment")
        name = named or f"build {commit} {build}".replace("  ", " ")
        tags = shared | {"irgen.parent_of": build, "mlflow.runName": name} | source_tags("irgen")
        if comparison := shared.get("irgen.comparison"):
            above = comparison_run(client, within, comparison, begin["time"])
            tags["mlflow.parentRunId"] = above
        found = client.create_run(within, start_time=begin["time"], tags=tags)
    run, logged = found.info.run_id, found.data.params
    missing = {key: value for key, value in begin["all_params"].items() if key not in logged}
    _log_params(client, run, missing)
    return run


def comparison_run(client: "MlflowClient", within: str, comparison: str, started: int) -> str:
    """The id of the run that a comparison's builds are below; made if need be."""
    found = find_run(client, within, {"irgen.comparison_of": comparison})
    if found is not None:
        return found.info.run_id
    tags = {"irgen.comparison_of": comparison, "mlflow.runName": f"comparison {comparison}"}
    run = client.create_run(within, start_time=started, tags=tags | source_tags("irgen"))
    client.set_terminated(run.info.run_id, "FINISHED", started)  # it holds others and does nothing
    return run.info.run_id


def _complete_comparison(
    path: Path, found: list[dict[str, Any]], client: "MlflowClient", within: str
) -> bool:
    """Logs a comparison's tables to the run that stands for it."""
    begin, end = found[0], found[-1]
    if end["kind"] != "end":
        return False
    run = comparison_run(client, within, begin["tags"]["irgen.comparison"], begin["time"])
    _log_metrics(client, run, found)
    for artifact in end["artifacts"]:
        _log_artifact(client, run, path, artifact, begin["max_bytes"])
    run_log.set_state(path, done=True, run=run, records=len(found))
    return True


def _child(
    client: "MlflowClient", within: str, parent: str, path: Path, begin: dict[str, Any]
) -> str:
    name = f"{path.parent.name}/{path.stem}"
    found = find_run(client, within, {"irgen.tracking.run_log": name})
    if found is not None:
        return found.info.run_id
    tags = begin["tags"] | source_tags(f"irgen {begin['stage']}")
    tags |= {
        "irgen.tracking.run_log": name,
        "irgen.build": path.parent.name,
        "mlflow.parentRunId": parent,
        "mlflow.runName": path.stem,
    }
    return client.create_run(within, start_time=begin["time"], tags=tags).info.run_id


def _log_params(client: "MlflowClient", run: str, params: dict[str, Any]) -> None:
    from mlflow.entities import Param

    entries = [Param(metric_name(key), str(value)[:6000]) for key, value in params.items()]
    for start in range(0, len(entries), 100):
        client.log_batch(run, params=entries[start : start + 100])


def _log_metrics(client: "MlflowClient", run: str, found: list[dict[str, Any]]) -> None:
    from mlflow.entities import Metric

    entries = [
        Metric(metric_name(key), value, record["time"], record["step"])
        for record in found
        if record["kind"] == "metrics"
        for key, value in record["values"].items()
    ]
    for start in range(0, len(entries), 1000):
        client.log_batch(run, metrics=entries[start : start + 1000])


def _close(
    client: "MlflowClient", run: str, parent: str, path: Path, ending: dict[str, Any]
) -> None:
    if ending.get("outcome"):
        links.link(client, run, ending)
    for artifact in ending.get("artifacts", []):
        _log_artifact(client, run, path, artifact, ending["max_bytes"])
    for target in (run, parent):
        _log_tables(client, target, ending.get("tables", []))
    if ending.get("summary"):
        summary = {"kind": "metrics", "values": ending["summary"], "step": 0}
        _log_metrics(client, parent, [summary | {"time": ending["time"]}])
    for tag, value in ending.get("standing", {}).items():
        client.set_tag(parent, tag, value)
    if ending.get("trouble"):
        client.set_tag(run, "irgen.error", ending["trouble"][:5000])
    client.set_terminated(run, ending["status"], ending["time"])


def _log_artifact(
    client: "MlflowClient", run: str, path: Path, artifact: dict[str, Any], max_bytes: int
) -> None:
    folder = str(Path(artifact["name"]).parent)
    kept, original = run_log.keepsakes(path) / artifact["name"], Path(artifact["path"])
    source = kept if kept.is_file() else original
    if artifact["bytes"] <= max_bytes and _is(source, artifact):
        client.log_artifact(run, str(source), None if folder == "." else folder)
        return
    pointer = {key: artifact[key] for key in ("path", "bytes", "sha256")}
    client.log_text(run, json.dumps(pointer, indent=2), f"{artifact['name']}.pointer.json")


def _is(path: Path, artifact: dict[str, Any]) -> bool:
    return path.is_file() and file_digest(path) == artifact["sha256"]


def _log_tables(client: "MlflowClient", run: str, tables: list[dict[str, Any]]) -> None:
    if not tables:
        return
    from mlflow.entities import DatasetInput, InputTag

    logged = client.get_run(run).inputs
    known = {
        (each.dataset.name, each.dataset.digest)
        for each in (logged.dataset_inputs if logged else [])
    }
    inputs = [
        DatasetInput(_dataset(table), [InputTag("mlflow.data.context", _context(table["name"]))])
        for table in tables
        if (table["name"], table["digest"]) not in known
    ]
    if inputs:
        client.log_inputs(run, inputs)


def _context(name: str) -> str:
    return {"train": "training", "queries": "evaluation"}.get(name, name)


def _dataset(table: dict[str, Any]) -> Any:
    """The MLflow dataset of a catalogue table as it was: its digest, columns and number of rows."""
    import polars as pl
    from mlflow.data.polars_dataset import from_polars
    from mlflow.entities import Dataset

    empty = pl.DataFrame(schema={name: _kind(kind) for name, kind in table["columns"].items()})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow has two readings of a local path, alike
        made = from_polars(
            empty, source=table["source"], name=table["name"], digest=table["digest"]
        )._to_mlflow_entity()
    profile = json.dumps({"num_rows": table["rows"], "num_elements": table["rows"] * empty.width})
    return Dataset(made.name, made.digest, made.source_type, made.source, made.schema, profile)


def _kind(name: str) -> Any:
    import polars as pl

    kinds: dict[str, Any] = {"Int64": pl.Int64, "Int32": pl.Int32, "Float64": pl.Float64}
    kinds |= {"Float32": pl.Float32, "Boolean": pl.Boolean}
    return kinds.get(name, pl.String)


def _set_parent_status(client: "MlflowClient", parent: str, folder: Path) -> None:
    """RUNNING while a stage is, FAILED if one's last attempt did, else FINISHED; stages to come may
    set it running again."""
    last: dict[str, tuple[int, str, int]] = {}
    for path in folder.glob("*.jsonl"):
        stage, _, attempt = path.stem.partition("-")
        with suppress(FileNotFoundError):
            found = run_log.records(path)
            if any(record["kind"] != "begin" for record in found):
                status = _status(path, found[-1])
                mine = (int(attempt or 1), status, found[-1]["time"])
                last[stage] = max(last.get(stage, (0, "", 0)), mine)
    states = {status for _, status, _ in last.values()}
    if "RUNNING" in states:
        client.update_run(parent, status="RUNNING")
        return
    worst = next((each for each in ("FAILED", "KILLED") if each in states), "FINISHED")
    client.set_terminated(parent, worst, max(ended for _, _, ended in last.values()))


def _status(path: Path, last: dict[str, Any]) -> str:
    if last["kind"] == "end":
        return last["status"]
    return "RUNNING" if run_log.being_written(path) else "KILLED"
