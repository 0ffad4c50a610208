"""Measure whether images that came after training still resemble the training images.

Time: N log N, for the sorts of codes and labels.
"""

from collections.abc import Callable

import numpy as np
import polars as pl

from irgen.catalog import manifest
from irgen.catalog.table import NAMES, mark_unchanged, read_table
from irgen.checkpoints import tensor_file
from irgen.checkpoints.identifiers import check_served, read_codes
from irgen.errors import ArtifactError
from irgen.evaluation import drift, drift_verdict, metrics, runs
from irgen.evaluation.drift import LabelledCodes
from irgen.evaluation.drift_verdict import Revisions
from irgen.evaluation.query_set import count_positives
from irgen.evaluation.sample import draw_sample
from irgen.files.records import write_json, write_sealed_json
from irgen.files.sealed import read_parquet
from irgen.files.workspace import Workspace
from irgen.params import Params

SERVED = "index"  # the search method whose answers are judged


def run(params: Params, workspace: Workspace, log: Callable) -> dict[str, float]:
    """Write ``data/drift/metrics.json`` and ``verdict.json``: whether there is drift, and why.

    Trains nothing and reads no image. Raises IndexingError if the codes are not the tokenizer's:
    residuals of its codes and answers of the index are measured.
    """
    check_served(params.identifiers.rule)
    tables = {name: read_table(workspace.existing("catalog", f"{name}.parquet")) for name in NAMES}
    workspace.existing("download", manifest.NAME)
    revisions = Revisions(
        now=manifest.read_revision(workspace.stage("download"))[0],
        trained=params.catalog.training_revision,
    )
    database, queries = (
        mark_later(tables, name, workspace, revisions) for name in ("database", "queries")
    )
    path = workspace.existing("tokenizer", "tokenizer.safetensors")
    codebooks = tensor_file.load_array(path, "codebooks")  # (M, L, D)
    labels = number_labels(tables)
    images = {
        name: load_coded(name, tables[name], labels[name], codebooks, workspace) for name in tables
    }
    held_out = images["validation"].append(images["queries"].take(~queries))
    measured = drift.measure_drift(images["train"], held_out, images["database"], database)
    measured |= measure_index(params, tables, queries, workspace)
    cutoff = metrics.main_cutoff(params.evaluate.cutoffs)
    signals = drift_verdict.compute_signals(measured, len(codebooks), cutoff, params.drift)
    verdict = drift_verdict.judge(measured, signals, params.drift, revisions)
    measured |= {f"signal/{name}": value for name, value in signals.items()}
    measured |= {"drifted": float(verdict.drifted), "revision": revisions.now}
    write_json(workspace.stage("drift") / "metrics.json", measured)
    write_sealed_json(workspace.stage("drift") / "verdict.json", verdict.to_json())
    print(f"drift: {drift_verdict.explain(verdict)}")
    return measured


def mark_later(
    tables: dict[str, pl.DataFrame], name: str, workspace: Workspace, revisions: Revisions
) -> np.ndarray:
    """Mark the images that came after the training revision and were not used in training or
    validation: (N,) bool."""
    listed = manifest.read(workspace.stage("download")).select("revision", path="key")
    table = tables[name].join(listed, on="path", how="left", maintain_order="left")
    if table["revision"].null_count():
        missing = table.filter(pl.col("revision").is_null())["path"][0]
        raise ArtifactError(
            f"{missing} is in the catalogue and not in the manifest: run dvc repro catalog"
        )
    before = pl.concat([tables["train"], tables["validation"]])
    return (table["revision"] > revisions.trained).to_numpy() & ~mark_unchanged(table, before)


def number_labels(tables: dict[str, pl.DataFrame]) -> dict[str, np.ndarray]:
    """Return the labels (N,) int64 of each table as numbers, the same in all; −1 is none."""
    texts = pl.concat([table["label"] for table in tables.values()])
    numbers = texts.rank("dense").cast(pl.Int64).fill_null(0).to_numpy() - 1
    ends = np.cumsum([len(table) for table in tables.values()])[:-1]
    return dict(zip(tables, np.split(numbers, ends), strict=True))


def load_coded(
    role: str,
    table: pl.DataFrame,
    labels: np.ndarray,
    codebooks: np.ndarray,
    workspace: Workspace,
) -> LabelledCodes:
    """Load a role's codes and residuals beside its ``labels`` (N,), row-aligned with its table.
    Raises ArtifactError if they belong to another table."""
    ids, codes, embeddings = read_codes(workspace.existing("identifiers", role))
    if not table["id"].equals(pl.Series("id", ids)):
        raise ArtifactError(
            f"the codes of {role} are not those of its table: run dvc repro identifiers"
        )
    return LabelledCodes(
        codes=codes,
        residuals=drift.compute_residuals(embeddings, codes, codebooks),
        labels=labels,
    )


def measure_index(
    params: Params, tables: dict[str, pl.DataFrame], later: np.ndarray, workspace: Workspace
) -> dict[str, float]:
    """Return how well the index answers earlier queries and those that came ``later`` (Q,): of
    those that ``evaluate`` measured."""
    sample = draw_sample(tables["queries"], params.evaluate.queries)
    queries, database = tables["queries"][sample], tables["database"]
    cutoffs = params.evaluate.cutoffs
    answers = read_parquet(workspace.existing("evaluate", "runs", f"{SERVED}.parquet"))
    _, hits = runs.from_table(answers, len(queries), max(cutoffs))
    positives = count_positives(
        queries["label"], queries["sha256"], database["label"], database["sha256"]
    )
    return drift.measure_quality(hits, positives, later[sample], cutoffs)
