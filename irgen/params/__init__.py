"""The settings of a project: ``params.yaml``, read strictly.

``params.yaml`` holds what a user sets. A key it leaves out has the default of its class.
"""

import re
from pathlib import Path

from pydantic.dataclasses import dataclass

from irgen.errors import ParamsError
from irgen.params.baselines import Baselines
from irgen.params.fields import STRICT, param
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
    Tokenizer,
    Tracking,
)
from irgen.params.strict import parse, read_yaml

GATED = ("precision", "precision_capped", "hit", "recall")  # metrics that the gate can compare


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Params:
    """All settings of a project."""

    seed: int = param(0, "seed of every random choice")
    compute: Compute = Compute()
    download: Download
    catalog: Catalog = Catalog()
    encoder: Encoder
    augment: Augment = Augment()
    pairs: Pairs = Pairs()
    tokenizer: Tokenizer = Tokenizer()
    identifiers: Identifiers = Identifiers()
    retriever: Retriever = Retriever()
    index: Index = Index()
    evaluate: Evaluate = Evaluate()
    baselines: Baselines = Baselines()
    drift: Drift = Drift()
    gate: Gate = Gate()
    release: Release = Release()
    report: Report = Report()
    tracking: Tracking = Tracking()


def load(path: Path) -> Params:
    """Read ``params.yaml``. Raise ParamsError naming section, key, and what is allowed."""
    params: Params = parse(Params, read_yaml(path), where=path.name)
    check(params)
    return params


def check(params: Params) -> None:
    """Raise ParamsError for values that are right by themselves and do not fit together."""
    evaluate, baselines, download = params.evaluate, params.baselines, params.download
    largest = max(evaluate.cutoffs)
    for place, value, lowest, highest in (
        ("evaluate: candidates", evaluate.candidates, largest, None),
        ("baselines: hnsw: search", baselines.hnsw.search, largest, None),
        ("baselines: scann: reranked", baselines.scann.reranked, largest, None),
        ("baselines: cgd: width", baselines.cgd.width, 3, None),  # three descriptors
        ("baselines: cgd: per_label", baselines.cgd.per_label, 2, baselines.cgd.batch_size),
        ("baselines: irt_r: per_label", baselines.irt_r.per_label, 2, baselines.irt_r.batch_size),
    ):
        if value < lowest or (highest is not None and value > highest):
            allowed = f"at least {lowest}" if highest is None else f"{lowest} to {highest}"
            raise ParamsError(f"params.yaml: {place}: {value} is out of range; allowed: {allowed}")
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
    metrics = [f"{name}/{k}" for name in GATED for k in evaluate.cutoffs]
    if params.gate.metric not in metrics:
        raise ParamsError(
            f"params.yaml: gate: metric: {params.gate.metric!r} is not measured; allowed: "
            f"{', '.join(metrics)}"
        )
