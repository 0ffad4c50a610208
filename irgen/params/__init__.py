"""Settings of a project: ``params.yaml``, read strictly.

``params.yaml`` holds what a user sets. A key it leaves out has the default of its class.
"""

import re
from pathlib import Path
from typing import Any

from pydantic.dataclasses import dataclass

from irgen.errors import ParamsError
from irgen.params.baselines import Baselines
from irgen.params.fields import STRICT, Number, Seed, param, required
from irgen.params.sections import (
    Augment,
    Catalog,
    Compute,
    Download,
    Drift,
    Encoder,
    Evaluate,
    Gate,
    Identifiers,
    Index,
    Pairs,
    Release,
    Report,
    Retriever,
    Texts,
    Tokenizer,
    Tracking,
)
from irgen.params.strict import parse, read_yaml

TRAINING_FILE = "training.yaml"  # the flow retrain raises its revision
# Metrics that the gate can compare:
GATED = ("precision", "precision_capped", "hit", "recall", "agreement")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Params:
    """All settings of a project."""

    seed: Seed = param(0, "seed of every random choice")
    compute: Compute = Compute()
    download: Download
    catalog: Catalog = Catalog()
    encoder: Encoder
    augment: Augment = Augment()
    pairs: Pairs = Pairs()
    tokenizer: Tokenizer = Tokenizer()
    identifiers: Identifiers = Identifiers()
    texts: Texts = Texts()
    retriever: Retriever = Retriever()
    index: Index = Index()
    evaluate: Evaluate = Evaluate()
    baselines: Baselines = Baselines()
    drift: Drift = Drift()
    gate: Gate = Gate()
    release: Release = Release()
    report: Report = Report()
    tracking: Tracking = Tracking()


@dataclass(frozen=True, kw_only=True, config=STRICT)
class _Training:
    revision: Number = required("newest revision of the images that models are trained on")


def load(path: Path) -> Params:
    """Read ``params.yaml``. Raise ParamsError naming section, key, and what is allowed."""
    tree = read_yaml(path)
    _set_training_revision(tree, path)
    params: Params = parse(Params, tree, where=path.name)
    check(params)
    return params


def _set_training_revision(tree: Any, path: Path) -> None:
    """Set ``catalog: training_revision`` from the file beside ``path``, if there is one. Raise
    ParamsError if both files set it."""
    revision = read_training_revision(path.parent)
    if revision is None or not isinstance(tree, dict):
        return
    catalog = tree.setdefault("catalog", {})
    if isinstance(catalog, dict):
        if "training_revision" in catalog:
            raise ParamsError(
                f"{path.name}: catalog: training_revision: {TRAINING_FILE} sets it: delete this key"
            )
        catalog["training_revision"] = revision


def read_training_revision(root: Path) -> int | None:
    """Return ``revision`` of ``training.yaml`` in the project's folder; None without such a file.
    Raise ParamsError if it holds anything but a whole number."""
    path = root / TRAINING_FILE
    return (
        parse(_Training, read_yaml(path), where=TRAINING_FILE).revision if path.exists() else None
    )


def check(params: Params) -> None:
    """Raise ParamsError for values that are right by themselves and do not fit together."""
    evaluate, baselines, download = params.evaluate, params.baselines, params.download
    largest = max(evaluate.cutoffs)
    for key, value, lowest, highest in (
        ("evaluate: candidates", evaluate.candidates, largest, None),
        ("baselines: hnsw: search", baselines.hnsw.search, largest, None),
        ("baselines: scann: reranked", baselines.scann.reranked, largest, None),
        ("baselines: cgd: width", baselines.cgd.width, 3, None),  # three descriptors
        ("baselines: cgd: per_label", baselines.cgd.per_label, 2, baselines.cgd.batch_size),
        ("baselines: irt_r: per_label", baselines.irt_r.per_label, 2, baselines.irt_r.batch_size),
    ):
        if value < lowest or (highest is not None and value > highest):
            allowed = f"at least {lowest}" if highest is None else f"{lowest} to {highest}"
            raise ParamsError(f"params.yaml: {key}: {value} is out of range; allowed: {allowed}")
    if not re.fullmatch(r"([0-9a-fA-F]{64})?", download.sha256):
        raise ParamsError(
            f"params.yaml: download: sha256: {download.sha256!r} is not a SHA-256 digest: give 64 "
            "hexadecimal digits, or leave it empty"
        )
    if params.retriever.width % params.retriever.heads:
        raise ParamsError(
            f"params.yaml: retriever: width {params.retriever.width} must be a multiple of "
            f"heads {params.retriever.heads}"
        )
    tokenizer = params.tokenizer
    is_untrained = tokenizer.tune_encoder and not tokenizer.probe_steps
    most = 0 if is_untrained else tokenizer.width - 1
    if tokenizer.pretrained_width > most:
        raise ParamsError(
            f"params.yaml: tokenizer: pretrained_width: {tokenizer.pretrained_width} is out of "
            f"range; allowed: 0 to {most}, less than width, and 0 if tune_encoder is true without "
            "probe_steps"
        )
    metrics = ["auto", *(f"{name}/{k}" for name in GATED for k in evaluate.cutoffs)]
    if params.gate.metric not in metrics:
        raise ParamsError(
            f"params.yaml: gate: metric: {params.gate.metric!r} is not measured; allowed: "
            f"{', '.join(metrics)}"
        )
