"""Tells whether the images that came since the training still are like those it knew."""

from collections.abc import Callable

import numpy as np
import polars as pl

from irgen.catalog import manifest
from irgen.catalog.table import NAMES, known_from, read_table
from irgen.checkpoints import tensor_file
from irgen.checkpoints.identifiers import check_served, read_identified
from irgen.errors import ArtifactError
from irgen.evaluation import drift, limits, metrics, runs
from irgen.evaluation.drift import Coded
from irgen.evaluation.limits import Revisions
from irgen.files import write_json
from irgen.params import Params
from irgen.workspace import Workspace

SERVED = "index"  # the search method whose answers are judged


def run(params: Params, workspace: Workspace, log: Callable) -> dict[str, float]:
    """Writes ``data/drift/metrics.json``, all that was measured, and ``verdict.json``, whether it
    is drift and why. Trains nothing and reads no image. Raises IndexingError if the codes are not
    the tokenizer's: what is judged are their leavings of an image and the index's answers."""
    check_served(params.identifiers.rule)
    tables = {name: read_table(workspace.existing("catalog", f"{name}.parquet")) for name in NAMES}
    workspace.existing("download", manifest.NAME)
    revisions = Revisions(
        now=manifest.read_revision(workspace.stage("download"))[0],
        trained=params.catalog.training_revision,
    )
    database, queries = (came_later(tables, name, workspace, revisions) for name in LATER)
    codebooks = read_codebooks(workspace)
    images = {name: coded(name, tables[name], codebooks, workspace) for name in tables}
    held_out = images["validation"].joined(images["queries"].take(~queries))
    found = drift.measure(images["train"], held_out, images["database"], database)
    found |= quality(params, tables, queries, workspace)
    cutoff = metrics.main_cutoff(params.evaluate.cutoffs)
    known = limits.signals(found, len(codebooks), cutoff, params.drift)
    verdict = limits.judge(found, known, params.drift, revisions)
    found |= {f"signal/{name}": value for name, value in known.items()}
    found |= {"drifted": float(verdict.drifted), "revision": revisions.now}
    write_json(workspace.stage("drift") / "metrics.json", found)
    write_json(workspace.stage("drift") / "verdict.json", verdict.plain())
    print(f"drift: {limits.words(verdict)}")
    return found


LATER = ("database", "queries")  # the tables that new images join


def came_later(
    tables: dict[str, pl.DataFrame], name: str, workspace: Workspace, revisions: Revisions
) -> np.ndarray:
    """Which images of a table (N,) bool were first seen after the training revision, and are none
    that anything was trained or validated on."""
    listed = manifest.read(workspace.stage("download")).select("revision", path="key")
    table = tables[name].join(listed, on="path", how="left", maintain_order="left")
    if table["revision"].null_count():
        missing = table.filter(pl.col("revision").is_null())["path"][0]
        raise ArtifactError(
            f"{missing} is in the catalogue and not in the manifest: run dvc repro catalog"
        )
    shown = pl.concat([tables["train"], tables["validation"]])
    return (table["revision"] > revisions.trained).to_numpy() & ~known_from(table, shown)


def read_codebooks(workspace: Workspace) -> np.ndarray:
    """The tokenizer's codebooks (M, L, D)."""
    path = workspace.existing("tokenizer", "tokenizer.safetensors")
    return tensor_file.load_array(path, "codebooks")


def coded(role: str, table: pl.DataFrame, codebooks: np.ndarray, workspace: Workspace) -> Coded:
    """A role's images, row by row with its table."""
    ids, codes, embeddings = read_identified(workspace.existing("identifiers", role))
    if ids != table["id"].to_list():
        raise ArtifactError(
            f"the codes of {role} are not those of its table: run dvc repro identifiers"
        )
    return Coded(
        codes=codes,
        residuals=drift.residuals(embeddings, codes, codebooks),
        labels=np.array(table["label"].fill_null("").to_list(), dtype=np.str_),
    )


def quality(
    params: Params, tables: dict[str, pl.DataFrame], later: np.ndarray, workspace: Workspace
) -> dict[str, float]:
    """How well the index answers old queries and those that came ``later`` (Q,)."""
    queries, database = tables["queries"], tables["database"]
    cutoffs = params.evaluate.cutoffs
    answers = pl.read_parquet(workspace.existing("evaluate", "runs", f"{SERVED}.parquet"))
    hits = runs.from_table(answers, len(queries), max(cutoffs))[2]
    positives = runs.positives(
        queries["label"], queries["sha256"], database["label"], database["sha256"]
    )
    return drift.quality(hits, positives, later, cutoffs)
