"""Write the report: settings, quality, and examples of success and failure.

Time: in proportion to N, for the tables, and to the queries that were measured.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl

from irgen.catalog.datasets.protocols import describe_protocol
from irgen.catalog.images.decode import decode_stored
from irgen.catalog.leaks import format_leaks
from irgen.catalog.shards import Images
from irgen.catalog.table import NAMES, describe_tables, read_table
from irgen.catalog.thumbnails import SIDE
from irgen.checkpoints.calibration import CALIBRATION, load_calibration
from irgen.checkpoints.ranking import RANKING, load_ranking
from irgen.errors import redact
from irgen.evaluation import drift_verdict
from irgen.evaluation.query_set import QuerySet, sample_query_set
from irgen.evaluation.warnings import (
    Outcome,
    format_warnings,
    list_warnings,
    measure_chance,
)
from irgen.files.atomic import atomic, write_bytes
from irgen.files.records import read_json, write_json
from irgen.files.sealed import read_numbers, read_parquet
from irgen.files.workspace import Workspace, git
from irgen.params import Params
from irgen.params.strict import flatten
from irgen.report import comparison, figures, gallery, page
from irgen.report.confusions import confusions
from irgen.search.calibration import Calibration, Uncalibrated
from irgen.search.ranking import Ranking

DEPTH = 10  # most results shown for a query, and the cut-off of the confusions
WARNINGS = "warnings.json"  # a list of texts


def run(params: Params, workspace: Workspace, log: Callable) -> dict[str, float]:
    """Write ``data/report/figures/*.svg``, equal for equal inputs, ``data/report/warnings.json``
    and ``reports/index.html``. Print the warnings and return how many there are.

    Raises ArtifactError if an earlier stage has not run; index and drift are only needed if the
    codes can be served.
    """
    k = min(DEPTH, max(params.evaluate.cutoffs))
    catalog = {name: read_table(workspace.existing("catalog", f"{name}.parquet")) for name in NAMES}
    rejected = read_parquet(workspace.existing("catalog", "rejected.parquet"))
    table = read_parquet(workspace.existing("identifiers", "database", "codes.parquet"))
    codes = table.select(pl.selectors.starts_with("level_")).to_numpy()  # (N, M)
    served = params.identifiers.rule == "semantic"
    calibration: Calibration | Ranking | Uncalibrated = Uncalibrated(
        reason="codes of this rule cannot be served"
    )
    if served:
        calibration = _read_probabilities(workspace)
    drawn = _draw_figures(workspace, codes, params.tokenizer.codebook)
    if not isinstance(calibration, Uncalibrated):
        drawn["reliability"] = figures.reliability(calibration.reliability)
    with atomic(workspace.stage("report") / "figures") as temporary:
        temporary.mkdir()
        for name, svg in drawn.items():
            (temporary / f"{name}.svg").write_bytes(svg)
    reliability = drawn.pop("reliability", None)  # the page shows it elsewhere
    searched = "index" if served else "generative_reranked"  # the method that people search with
    run = _read_run(workspace, searched, k)
    query_set = sample_query_set(catalog["queries"], catalog["database"], params.evaluate)
    warnings = _warn(params, workspace, query_set)
    content = page.Content(
        facts=_describe_data(params, catalog, rejected) | _describe_build(workspace),
        settings=_describe_models(params, codes)
        | _describe_protocol(workspace)
        | _describe_commit(workspace.data.parent),
        warnings=warnings,
        labelled=query_set.labelled,
        measured=comparison.read(
            workspace.existing("evaluate", "metrics.json"), workspace.reports / "latency.json"
        ),
        calibration=calibration,
        reliability=reliability,
        drift=_read_drift(params, workspace) if served else None,
        figures=drawn,
        gallery=gallery.choose_examples(
            query_set,
            {comparison.METHODS[searched]: run},
            _thumbnails(workspace),
            k=k,
            count=params.report.gallery,
            seed=params.seed,
            neighbours=None
            if query_set.labelled
            else _read_run(workspace, "brute_force_pretrained", k),
        ),
        confusions=confusions(
            run,
            query_set.queries["label"],
            query_set.database["label"],
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


def _read_probabilities(workspace: Workspace) -> Calibration | Ranking | Uncalibrated:
    """Return what gives the index's hits their probabilities: its ranking, else its calibration."""
    ranking = load_ranking(workspace.existing("index", "models", RANKING))
    if isinstance(ranking, Ranking):
        return ranking
    return load_calibration(workspace.existing("index", "models", CALIBRATION))


def _warn(params: Params, workspace: Workspace, query_set: QuerySet) -> list[str]:
    """Return the warnings about this build."""
    measured = read_json(workspace.existing("evaluate", "metrics.json"))
    outcome = Outcome(
        served=measured.get("index", {}),
        chance=measure_chance(query_set),
        images=len(query_set.database),
        trainings={
            stage: _read_history(workspace, stage).tail(1).to_dicts()[0]
            for stage in ("tokenizer", "retriever")
        },
    )
    return list_warnings(outcome, params.encoder, params.download)


def _read_history(workspace: Workspace, stage: str) -> pl.DataFrame:
    return read_numbers(workspace.existing(stage, "history.csv"))


def _read_run(workspace: Workspace, method: str, k: int) -> pl.DataFrame:
    """Return the first k results of a method for each query."""
    run = read_parquet(workspace.existing("evaluate", "runs", f"{method}.parquet"))
    return run.filter(pl.col("rank") <= k)


def _thumbnails(workspace: Workspace) -> gallery.Thumbnail:
    images = Images(workspace.stage("download"))
    return lambda sha256: gallery.thumbnail(decode_stored(images, sha256, 3, SIDE).image)


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
    """Return the figures that show something by name, in the order of the page."""
    curve = read_numbers(workspace.existing("evaluate", "precision.csv"), "method")
    tokenizer, retriever = (_read_history(workspace, stage) for stage in ("tokenizer", "retriever"))
    drawn = {
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
    return {name: svg for name, svg in drawn.items() if svg is not None}


def _describe_data(
    params: Params, catalog: dict[str, pl.DataFrame], rejected: pl.DataFrame
) -> dict[str, str | page.Link]:
    """Describe the images in a few words."""
    labels = pl.concat([table["label"] for table in catalog.values()]).drop_nulls().n_unique()
    images = {name: f"{len(table):,}" for name, table in catalog.items()}
    counts = [f"{labels:,} labels" if labels else "no labels"]
    counts += (
        [f"{len(rejected):,} {'image' if len(rejected) == 1 else 'images'} left out"]
        if len(rejected)
        else []
    )
    return {
        "Source": f"{redact(params.download.source)}: {', '.join(counts)}",
        "Images": describe_tables(catalog["database"], catalog["queries"]),
        "Trained on": f"{images['train']} images, validated on {images['validation']}",
    }


def _describe_build(workspace: Workspace) -> dict[str, str | page.Link]:
    """Say when, in what time and on what machine the results were made, with links to MLflow's run
    and to the release. Two files say so that are no outputs of DVC, because they differ from build
    to build: ``reports/build.json``, of the command that runs this stage, and latency.json."""
    path, timed = workspace.reports / "build.json", workspace.reports / "latency.json"
    values = read_json(path) if path.exists() else []
    facts = {name: page.Link(text, url) if url else text for name, text, url in values}
    machine = read_json(timed).get("machine", {}) if timed.exists() else {}
    if machine:
        threads = f", threads: {machine['threads']}" if machine["device"] == "cpu" else ""
        facts["Measured on"] = f"{machine['processor']}{threads}"
    return facts


def _describe_models(params: Params, codes: np.ndarray) -> dict[str, str]:
    """Describe models and search in a few words each."""
    encoder, retriever = params.encoder, params.retriever
    return {
        "Encoder": f"{encoder.name}, weights: {encoder.weights}, {encoder.image_size} px",
        "Identifier": f"M = {codes.shape[1]} levels × L = {params.tokenizer.codebook} codes; "
        f"{pl.DataFrame(codes).n_unique():,} different codes",
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
