"""Write the report: settings, quality, and examples of success and failure."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl

from irgen.catalog.datasets.protocols import describe_protocol
from irgen.catalog.images import decode
from irgen.catalog.leaks import format_leaks
from irgen.catalog.shards import Images
from irgen.catalog.table import NAMES, read_table
from irgen.checkpoints.calibration import CALIBRATION, load_calibration
from irgen.errors import redact
from irgen.evaluation import drift_verdict
from irgen.evaluation.query_set import QuerySet
from irgen.evaluation.warnings import (
    Outcome,
    format_warnings,
    list_warnings,
    measure_chance,
)
from irgen.files import atomic, read_json, write_bytes, write_json
from irgen.params import Params
from irgen.params.strict import flatten
from irgen.report import comparison, figures, gallery, page
from irgen.report.confusions import confusions
from irgen.search.calibration import Calibration, Uncalibrated
from irgen.workspace import Workspace, git

DEPTH = 10  # most results shown for a query, and the cut-off of the confusions
WARNINGS = "warnings.json"  # a list of texts
SHOWN = ("generative", "brute_force_tuned")  # methods in the gallery


def run(params: Params, workspace: Workspace, log: Callable) -> dict[str, float]:
    """Write ``data/report/figures/*.svg``, equal for equal inputs, ``data/report/warnings.json``
    and ``reports/index.html``. Print the warnings and return how many there are.

    Raises ArtifactError if an earlier stage has not run; index and drift are only needed if the
    codes can be served.
    """
    k = min(DEPTH, max(params.evaluate.cutoffs))
    catalog = {name: read_table(workspace.existing("catalog", f"{name}.parquet")) for name in NAMES}
    rejected = pl.read_parquet(workspace.existing("catalog", "rejected.parquet"))
    table = pl.read_parquet(workspace.existing("identifiers", "database", "codes.parquet"))
    codes = table.select(pl.selectors.starts_with("level_")).to_numpy()  # (N, M)
    served = params.identifiers.rule == "semantic"
    calibration: Calibration | Uncalibrated = Uncalibrated(
        reason="codes of this rule cannot be served"
    )
    if served:
        calibration = load_calibration(workspace.existing("index", "models", CALIBRATION))
    drawn = _draw_figures(workspace, codes, params.tokenizer.codebook)
    if isinstance(calibration, Calibration):
        drawn["reliability"] = figures.reliability(calibration.reliability)
    with atomic(workspace.stage("report") / "figures") as temporary:
        temporary.mkdir()
        for name, svg in drawn.items():
            (temporary / f"{name}.svg").write_bytes(svg)
    reliability = drawn.pop("reliability", None)  # the page shows it elsewhere
    runs = workspace.existing("evaluate", "runs")
    shown = {
        method: pl.read_parquet(runs / f"{method}.parquet").filter(pl.col("rank") <= k)
        for method in SHOWN
    }
    warnings = _warn(params, workspace, catalog)
    content = page.Content(
        facts=_describe(params, catalog, rejected, codes)
        | _describe_protocol(workspace)
        | _describe_commit(workspace.data.parent),
        measured=comparison.read(
            workspace.existing("evaluate", "metrics.json"), workspace.reports / "latency.json"
        ),
        calibration=calibration,
        reliability=reliability,
        drift=_read_drift(params, workspace) if served else None,
        figures=drawn,
        gallery=_choose_examples(params, workspace, catalog, shown, k),
        confusions=confusions(
            shown["generative"],
            catalog["queries"]["label"],
            catalog["database"]["label"],
            k,
            params.report.confusions,
        ),
        rejected=rejected,
        params=redact(flatten(params)),
        k=k,
    )
    path = workspace.reports / "index.html"
    write_bytes(path, page.render(content).encode())
    write_json(workspace.stage("report") / WARNINGS, warnings)
    print(f"report: {path}")
    if warnings:
        print(format_warnings(warnings))
    return {"warnings": float(len(warnings))}


def _warn(params: Params, workspace: Workspace, catalog: dict[str, pl.DataFrame]) -> list[str]:
    """Return the warnings about this build."""
    measured = read_json(workspace.existing("evaluate", "metrics.json"))
    query_set = QuerySet.build(catalog["queries"], catalog["database"], DEPTH)
    outcome = Outcome(
        served=measured.get("index", {}),
        chance=measure_chance(query_set),
        trainings={
            stage: _read_history(workspace, stage).tail(1).to_dicts()[0]
            for stage in ("tokenizer", "retriever")
        },
    )
    return list_warnings(outcome, params.encoder, params.download)


def _read_history(workspace: Workspace, stage: str) -> pl.DataFrame:
    path = workspace.existing(stage, "history.csv")
    return pl.read_csv(path, infer_schema_length=None)


def _read_drift(params: Params, workspace: Workspace) -> page.Drift | None:
    """Return the verdict of the drift stage, or None if there are no new images."""
    metrics = read_json(workspace.existing("drift", "metrics.json"))
    verdict = drift_verdict.verdict_from_json(
        read_json(workspace.existing("drift", "verdict.json"))
    )
    if not verdict.new:
        return None
    signals = {name.removeprefix("signal/"): value for name, value in metrics.items()}
    rows = drift_verdict.tabulate_signals(signals, verdict, params.drift)
    return page.Drift(words=drift_verdict.explain(verdict), rows=rows)


def _draw_figures(workspace: Workspace, codes: np.ndarray, codebook: int) -> dict[str, bytes]:
    """Return the figures by name, in the order in which the page shows them."""
    curve = pl.read_csv(workspace.existing("evaluate", "precision.csv"))
    tokenizer, retriever = (_read_history(workspace, stage) for stage in ("tokenizer", "retriever"))
    return {
        "precision": figures.precision_over_k(curve, comparison.METHODS),
        "retriever_validation": figures.validation_precision(retriever),
        "retriever_losses": figures.losses(retriever, "retriever"),
        "retriever_accuracy": figures.accuracies(retriever, "retriever"),
        "tokenizer_losses": figures.losses(tokenizer, "tokenizer"),
        "tokenizer_accuracy": figures.accuracies(tokenizer, "tokenizer"),
        "codes_used": figures.codebook_use(tokenizer, codebook),
        "perplexity": figures.perplexities(tokenizer),
        "code_groups": figures.code_group_sizes(codes),
    }


def _describe(
    params: Params, catalog: dict[str, pl.DataFrame], rejected: pl.DataFrame, codes: np.ndarray
) -> dict[str, str]:
    """Describe data, models and settings in a few words each."""
    encoder, retriever = params.encoder, params.retriever
    labels = pl.concat([table["label"] for table in catalog.values()]).drop_nulls().n_unique()
    images = {name: f"{len(table):,}" for name, table in catalog.items()}
    source = redact(params.download.source)
    return {
        "Source": f"{source}: {labels:,} labels, {len(rejected):,} rejected",
        "Database and queries": f"{images['database']} images, {images['queries']} queries",
        "Trained on": f"{images['train']} images, validated on {images['validation']}",
        "Encoder": f"{encoder.name}, weights: {encoder.weights}, {encoder.image_size} px",
        "Identifier": f"M = {codes.shape[1]} levels × L = {params.tokenizer.codebook} codes; "
        f"{len(np.unique(codes, axis=0)):,} different codes",
        "Decoder": f"{retriever.layers} layers, {retriever.width} wide",
        "Search": f"{params.evaluate.beams} beams, at most {params.evaluate.candidates} candidates",
        "Seed": str(params.seed),
    }


def _describe_protocol(workspace: Workspace) -> dict[str, str]:
    """Describe the protocol of the evaluation, and the leaks between queries and other images."""
    record = read_json(workspace.existing("catalog", "protocol.json"))
    return {"Protocol": describe_protocol(record), "Leaks": format_leaks(record["leaks"])}


def _describe_commit(folder: Path) -> dict[str, str]:
    """Return the Git commit of the project, if it is a repository."""
    commit = git(folder, "describe", "--always", "--dirty", "--exclude", "*")
    return {"Commit": commit.replace("-dirty", ", with changes not committed")} if commit else {}


def _choose_examples(
    params: Params,
    workspace: Workspace,
    catalog: dict[str, pl.DataFrame],
    shown: dict[str, pl.DataFrame],
    k: int,
) -> list[gallery.Example]:
    """Choose queries by how well generative search answers them; return them with the hits of both
    methods."""
    images = Images(workspace.stage("download"))

    def thumbnail(sha256: str) -> str:
        return gallery.thumbnail(decode(images.read(sha256), params.encoder.channels))

    return gallery.choose_examples(
        catalog["queries"],
        catalog["database"],
        shown,
        thumbnail,
        k=k,
        count=params.report.gallery,
        seed=params.seed,
    )
