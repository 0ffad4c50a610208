"""The page a person reads: what was run, what it found, where it fails."""

import subprocess
from collections.abc import Callable
from functools import partial
from importlib.metadata import version as installed
from pathlib import Path

import numpy as np
import polars as pl

from irgen.catalog.datasets.protocols import in_words
from irgen.catalog.images import decode
from irgen.catalog.leaks import told
from irgen.catalog.shards import Images
from irgen.catalog.table import NAMES, read_table
from irgen.checkpoints.calibration import CALIBRATION, load_calibration
from irgen.errors import redact
from irgen.evaluation import limits
from irgen.files import atomic, digest, file_digest, read_json, write_bytes
from irgen.params import Params
from irgen.params.strict import flatten
from irgen.report import comparison, figures, gallery, page
from irgen.report.confusions import confusions
from irgen.search.calibration import Calibration, Uncalibrated
from irgen.workspace import Workspace

Log = Callable[[dict[str, float], int], None]

DEPTH = 10  # most results shown of each query, and the cut-off of the confusions
SHOWN = ("generative", "scan_tuned")


def run(params: Params, workspace: Workspace, log: Log) -> dict[str, float]:
    """Writes data/report/figures/*.svg, the same for the same inputs, and reports/index.html, and
    prints where the page is. Raises ArtifactError if an earlier stage has not run; with codes that
    cannot be served neither index nor drift need have."""
    k = _depth(params)
    catalog = {name: read_table(workspace.existing("catalog", f"{name}.parquet")) for name in NAMES}
    rejected = pl.read_parquet(workspace.existing("catalog", "rejected.parquet"))
    codes = _codes(workspace)
    served = params.identifiers.rule == "semantic"
    known: Calibration | Uncalibrated = Uncalibrated(reason="codes of this rule cannot be served")
    if served:
        known = load_calibration(workspace.existing("index", "models", CALIBRATION))
    drawn = _draw(workspace, codes, params.tokenizer.codebook)
    if isinstance(known, Calibration):
        drawn["reliability"] = figures.reliability(known.reliability)
    _write_figures(workspace.stage("report") / "figures", drawn)
    reliability = drawn.pop("reliability", None)  # has a place of its own
    shown = {method: _read_run(workspace, method).filter(pl.col("rank") <= k) for method in SHOWN}
    content = page.Content(
        facts=_facts(params, catalog, rejected, codes)
        | _protocol(workspace)
        | _commit(workspace.data.parent),
        measured=comparison.read(
            workspace.existing("evaluate", "metrics.json"), workspace.reports / "latency.json"
        ),
        calibration=known,
        reliability=reliability,
        drift=_drift(params, workspace) if served else None,
        figures=drawn,
        gallery=_gallery(params, workspace, catalog, shown),
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


def _depth(params: Params) -> int:
    return min(DEPTH, max(params.evaluate.cutoffs))


def _drift(params: Params, workspace: Workspace) -> page.Drift | None:
    """What the drift stage found, if there are new images."""
    found = read_json(workspace.existing("drift", "metrics.json"))
    verdict = limits.verdict_of(read_json(workspace.existing("drift", "verdict.json")))
    if not verdict.new:
        return None
    known = {name.removeprefix("signal/"): value for name, value in found.items()}
    rows = limits.table(known, verdict, params.drift)
    return page.Drift(words=limits.words(verdict), rows=rows)


def _codes(workspace: Workspace) -> np.ndarray:
    """Codes (N, M) of the database."""
    table = pl.read_parquet(workspace.existing("identifiers", "database", "codes.parquet"))
    return table.select(pl.selectors.starts_with("level_")).to_numpy()


def _read_run(workspace: Workspace, method: str) -> pl.DataFrame:
    return pl.read_parquet(workspace.existing("evaluate", "runs", f"{method}.parquet"))


def _draw(workspace: Workspace, codes: np.ndarray, codebook: int) -> dict[str, bytes]:
    """The figures by name, in the order they are shown."""
    curve = pl.read_csv(workspace.existing("evaluate", "precision.csv"))
    tokenizer, retriever = (
        pl.read_csv(workspace.existing(stage, "history.csv"), infer_schema_length=None)
        for stage in ("tokenizer", "retriever")
    )
    once = partial(_drawn, workspace.cache / "figures")  # an update trains nothing
    return {
        "precision": figures.precision_over_k(curve, comparison.METHODS),
        "retriever_validation": once(figures.validation_precision, retriever),
        "retriever_losses": once(figures.losses, retriever, "retriever"),
        "retriever_accuracy": once(figures.accuracies, retriever, "retriever"),
        "tokenizer_losses": once(figures.losses, tokenizer, "tokenizer"),
        "tokenizer_accuracy": once(figures.accuracies, tokenizer, "tokenizer"),
        "entries_used": once(figures.codebook_use, tokenizer, codebook),
        "perplexity": once(figures.perplexities, tokenizer),
        "buckets": figures.bucket_sizes(codes),
    }


def _drawn(
    folder: Path, draw: Callable[..., bytes], history: pl.DataFrame, *others: str | int
) -> bytes:
    """The figure that ``draw`` makes of a training's history, kept in ``folder``."""
    code = file_digest(Path(figures.__file__)), installed("matplotlib")
    key = digest(draw.__name__, history.write_csv(), others, code)[:16]
    path = folder / f"{key}.svg"
    if not path.exists():
        write_bytes(path, draw(history, *others))
    return path.read_bytes()


def _write_figures(folder: Path, drawn: dict[str, bytes]) -> None:
    with atomic(folder) as temporary:
        temporary.mkdir()
        for name, svg in drawn.items():
            (temporary / f"{name}.svg").write_bytes(svg)


def _facts(
    params: Params, catalog: dict[str, pl.DataFrame], rejected: pl.DataFrame, codes: np.ndarray
) -> dict[str, str]:
    """What was run, in a few words each."""
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


def _protocol(workspace: Workspace) -> dict[str, str]:
    """By whose rules the figures were measured, and what queries were known before."""
    about = read_json(workspace.existing("catalog", "protocol.json"))
    return {
        "Protocol": in_words(about),
        "Leaks": told(about["leaks"]),
    }


def _commit(folder: Path) -> dict[str, str]:
    """The git commit of the project, if it is a repository and git is there."""
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--exclude", "*"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"Commit": told.stdout.strip().replace("-dirty", ", with changes not committed")}


def _gallery(
    params: Params,
    workspace: Workspace,
    catalog: dict[str, pl.DataFrame],
    shown: dict[str, pl.DataFrame],
) -> list[gallery.Example]:
    """Queries chosen by how well the generative search answers them, with both methods' results."""
    images = Images(workspace.stage("download"))

    def thumbnail(sha256: str) -> str:
        return gallery.thumbnail(decode(images.read(sha256), params.encoder.channels))

    wanted = (_depth(params), params.report.gallery, params.seed)
    return gallery.examples(catalog["queries"], catalog["database"], shown, wanted, thumbnail)
