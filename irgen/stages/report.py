"""Write the page that people read: what was run, how good it is, where it fails."""

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
from irgen.files import atomic, read_json, write_bytes
from irgen.params import Params
from irgen.params.strict import flatten
from irgen.report import comparison, figures, gallery, page
from irgen.report.confusions import confusions
from irgen.search.calibration import Calibration, Uncalibrated
from irgen.workspace import Workspace, git

DEPTH = 10  # most results shown for a query, and the cut-off of the confusions
SHOWN = ("generative", "brute_force_tuned")  # methods in the gallery


def run(params: Params, workspace: Workspace, log: Callable) -> dict[str, float]:
    """Write ``data/report/figures/*.svg``, equal for equal inputs, and ``reports/index.html``.

    Raises ArtifactError if an earlier stage has not run. With codes that cannot be served, the
    stages index and drift are not needed.
    """
    k = min(DEPTH, max(params.evaluate.cutoffs))
    catalog = {name: read_table(workspace.existing("catalog", f"{name}.parquet")) for name in NAMES}
    rejected = pl.read_parquet(workspace.existing("catalog", "rejected.parquet"))
    codes = _read_codes(workspace)
    served = params.identifiers.rule == "semantic"
    calibration: Calibration | Uncalibrated = Uncalibrated(
        reason="codes of this rule cannot be served"
    )
    if served:
        calibration = load_calibration(workspace.existing("index", "models", CALIBRATION))
    drawn = _draw_figures(workspace, codes, params.tokenizer.codebook)
    if isinstance(calibration, Calibration):
        drawn["reliability"] = figures.reliability(calibration.reliability)
    _write_figures(workspace.stage("report") / "figures", drawn)
    reliability = drawn.pop("reliability", None)  # the page shows it elsewhere
    shown = {method: _read_run(workspace, method).filter(pl.col("rank") <= k) for method in SHOWN}
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
    print(f"report: {path}")
    return {}


def _read_drift(params: Params, workspace: Workspace) -> page.Drift | None:
    """Return the verdict of the drift stage, or None if there are no new images."""
    found = read_json(workspace.existing("drift", "metrics.json"))
    verdict = drift_verdict.verdict_from_json(
        read_json(workspace.existing("drift", "verdict.json"))
    )
    if not verdict.new:
        return None
    known = {name.removeprefix("signal/"): value for name, value in found.items()}
    rows = drift_verdict.tabulate_signals(known, verdict, params.drift)
    return page.Drift(words=drift_verdict.explain(verdict), rows=rows)


def _read_codes(workspace: Workspace) -> np.ndarray:
    """Return the codes (N, M) of the database."""
    table = pl.read_parquet(workspace.existing("identifiers", "database", "codes.parquet"))
    return table.select(pl.selectors.starts_with("level_")).to_numpy()


def _read_run(workspace: Workspace, method: str) -> pl.DataFrame:
    return pl.read_parquet(workspace.existing("evaluate", "runs", f"{method}.parquet"))


def _draw_figures(workspace: Workspace, codes: np.ndarray, codebook: int) -> dict[str, bytes]:
    """Return the figures by name, in the order in which the page shows them."""
    curve = pl.read_csv(workspace.existing("evaluate", "precision.csv"))
    tokenizer, retriever = (
        pl.read_csv(workspace.existing(stage, "history.csv"), infer_schema_length=None)
        for stage in ("tokenizer", "retriever")
    )
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


def _write_figures(folder: Path, drawn: dict[str, bytes]) -> None:
    with atomic(folder) as temporary:
        temporary.mkdir()
        for name, svg in drawn.items():
            (temporary / f"{name}.svg").write_bytes(svg)


def _describe(
    params: Params, catalog: dict[str, pl.DataFrame], rejected: pl.DataFrame, codes: np.ndarray
) -> dict[str, str]:
    """Return what was run, in a few words each."""
    encoder, retriever = params.encoder, params.retriever
    labels = pl.concat([table["label"] for table in catalog.values()]).drop_nulls().n_unique()
    images = {name: f"{len(table):,}" for name, table in catalog.items()}
    source = redact(params.download.source)
    return {
        "Source": f"{source}: {labels:,} labels, {len(rejected):,} rejected",
        "Database and queries": f"{images['database']} images, {images['queries']} queries",
        "Trained on": f"{images['train']} images, validated on {images['validation']}",
        "Encoder": f"{encoder.name}, weights: {encoder.weights}, {encoder.image_size} px",
        "Identifier": f"M = {codes.shape[1]} levels × L = {params.tokenizer.codebook} entries; "
        f"{len(np.unique(codes, axis=0)):,} different codes",
        "Decoder": f"{retriever.layers} layers, {retriever.width} wide",
        "Search": f"{params.evaluate.beams} beams, at most {params.evaluate.candidates} candidates",
        "Seed": str(params.seed),
    }


def _describe_protocol(workspace: Workspace) -> dict[str, str]:
    """Return the rules by which was measured, and the leaks between queries and other images."""
    about = read_json(workspace.existing("catalog", "protocol.json"))
    return {
        "Protocol": describe_protocol(about),
        "Leaks": format_leaks(about["leaks"]),
    }


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
    """Return queries chosen by how well generative search answers them, with both methods' hits."""
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
