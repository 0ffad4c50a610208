"""Log parameters, metrics, files and data sets to an MLflow run. All can be repeated."""

import json
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from irgen.files.digests import file_digest
from irgen.tracking import run_log

if TYPE_CHECKING:
    from mlflow.entities import Dataset

    from irgen.tracking.mlflow_store import MlflowClient

PARAMS_A_CALL, METRICS_A_CALL = 100, 1000  # MLflow's limits
LONGEST_VALUE = 6000  # characters of a parameter
TYPES: dict[str, Any] = {  # of columns that MLflow shows by their type; the others are strings
    "Int64": pl.Int64,
    "Int32": pl.Int32,
    "Boolean": pl.Boolean,
    "Float64": pl.Float64,
    "Float32": pl.Float32,
}


def format_name(name: str) -> str:
    """Return ``name`` as MLflow accepts it. MLflow's charts show the part after the last slash, so
    a cut-off does not stand alone there.

    >>> [format_name(name) for name in ("index/precision/10", "map/R", "hit@1")]
    ['index/precision_at_10', 'map_at_R', 'hit_at_1']
    """
    name = re.sub(r"[/@](\d+|R)$", r"_at_\1", name)
    return re.sub(r"[^\w\-. /]", "_", name)[:250]


def log_params(client: "MlflowClient", run: str, params: dict[str, Any]) -> None:
    """Log parameters, in as many calls as MLflow needs."""
    from mlflow.entities import Param

    logged = [Param(format_name(key), str(value)[:LONGEST_VALUE]) for key, value in params.items()]
    for start in range(0, len(logged), PARAMS_A_CALL):
        client.log_batch(run, params=logged[start : start + PARAMS_A_CALL])


def log_metrics(
    client: "MlflowClient",
    run: str,
    values: dict[str, float],
    *,
    time: int,
    step: int,
    model: str | None = None,
) -> None:
    """Log metrics of one step, also to a logged model. ``time``: milliseconds since 1970."""
    record = {"kind": "metrics", "values": values, "time": time, "step": step}
    log_records(client, run, [record], model)


def log_records(
    client: "MlflowClient", run: str, records: list[run_log.Record], model: str | None = None
) -> None:
    """Log the metrics among a run log's records; also to the logged model with the id ``model``."""
    from mlflow.entities import Metric

    metrics = [
        Metric(format_name(key), value, record["time"], record["step"], model, run_id=run)
        for record in records
        if record["kind"] == "metrics"
        for key, value in record["values"].items()
    ]
    for start in range(0, len(metrics), METRICS_A_CALL):
        client.log_batch(run, metrics=metrics[start : start + METRICS_A_CALL])


def select_curves(stage: str, records: list[run_log.Record]) -> list[run_log.Record]:
    """Return the curves of a training that its build shows: loss and validation, not each level's.

    >>> values = {"loss": 0.5, "validation/hit/10": 0.9, "restarts": 1.0}
    >>> select_curves("retriever", [{"kind": "metrics", "step": 20, "values": values}])[0]["values"]
    {'retriever/loss': 0.5, 'retriever/validation_hit_at_10': 0.9}
    """
    curves = []
    for record in records:
        if record["kind"] == "metrics" and record["step"]:
            values = {
                f"{stage}/{format_name(name).replace('/', '_')}": value
                for name, value in record["values"].items()
                if name == "loss" or re.match(r"validation/(?!.*_\d+$)", name)
            }
            curves.append(record | {"values": values})
    return curves


def log_file(
    client: "MlflowClient", run: str, log_path: Path, file: dict[str, Any], max_bytes: int
) -> None:
    """Log a file that the run log at ``log_path`` names. If it is too large, may hold images, or
    has changed since, log its path, size and hash instead."""
    folder = Path(file["name"]).parent.as_posix()
    copy = run_log.copies_folder(log_path) / file["name"]
    source = copy if copy.is_file() else Path(file["path"])
    is_copied = run_log.is_copied(file, max_bytes)
    if is_copied and source.is_file() and file_digest(source) == file["sha256"]:
        client.log_artifact(run, str(source), None if folder == "." else folder)
        return
    pointer = {key: file[key] for key in ("path", "bytes", "sha256")}
    client.log_text(run, json.dumps(pointer, indent=2), f"{file['name']}.pointer.json")


def log_tables(client: "MlflowClient", run: str, tables: list[dict[str, Any]]) -> None:
    """Log catalogue tables as the data sets of a run; skip those it has."""
    if not tables:
        return
    from mlflow.entities import DatasetInput, InputTag

    inputs = client.get_run(run).inputs
    datasets = [item.dataset for item in (inputs.dataset_inputs if inputs else [])]
    logged = {(dataset.name, dataset.digest) for dataset in datasets}
    contexts = {"train": "training", "queries": "evaluation"}
    new = [
        DatasetInput(
            _as_dataset(table),
            [InputTag("mlflow.data.context", contexts.get(table["name"], table["name"]))],
        )
        for table in tables
        if (table["name"], table["digest"]) not in logged
    ]
    if new:
        client.log_inputs(run, new)


def _as_dataset(table: dict[str, Any]) -> "Dataset":
    """Return a catalogue table's digest, columns and number of rows as MLflow's data set."""
    from mlflow.data.polars_dataset import from_polars
    from mlflow.entities import Dataset

    columns = {name: TYPES.get(dtype, pl.String) for name, dtype in table["columns"].items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow reads a local path in two ways, which are alike
        described = from_polars(
            pl.DataFrame(schema=columns),
            source=table["source"],
            name=table["name"],
            digest=table["digest"],
        ).to_dict()
    cells = table["rows"] * len(columns)
    return Dataset(
        described["name"],
        described["digest"],
        described["source_type"],
        described["source"],
        described["schema"],
        json.dumps({"num_rows": table["rows"], "num_elements": cells}),
    )
