"""The methods side by side: metrics and latency as one table, in text and in markdown."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irgen.evaluation import metrics
from irgen.files import file_digest, read_json

METHODS = {
    "scan_pretrained": "exact scan, pretrained features",
    "scan_tuned": "exact scan, tuned embeddings",
    "scan_labels": "exact scan, likeliest label first",
    "scan_codes": "exact scan, codes only",
    "generative": "generative search",
    "generative_reranked": "generative search, re-ranked",
    "index": "the index that is served",
}
BASELINES = {
    "hnsw": "tuned embeddings by HNSW",
    "ivf_pq": "tuned embeddings by IVF-PQ",
    "scann": "tuned embeddings by ScaNN",
    "scann_like": "tuned embeddings by ScaNN's nearest faiss equivalent: "
    "4-bit PQ fast scan, re-ranked",
    "spann_like": "tuned embeddings by SPANN's nearest faiss equivalent: "
    "HNSW over centroids, closure lists in memory",
    "cgd": "CGD, exact scan",
    "irt_r": "IRT_R, exact scan",
}  # what the stage baselines measures, not in evaluate's table; of the two ScaNN the one in use
EVERY = METHODS | BASELINES
NOTE = "–: not measured on this machine: dvc repro -sf evaluate"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was measured: ``quality`` by method and metric, ``latency`` likewise (empty if unknown),
    ``queries`` with count and without_positive."""

    quality: dict[str, dict[str, float]]
    latency: dict[str, dict[str, float]]
    queries: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class Table:
    """Texts in rows; the first column is words, the others are numbers; ``note`` may be empty."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str


def read(path: Path, latency: Path, methods: Mapping[str, str] = METHODS) -> Measured:
    """Reads metrics.json and latency.json, of ``methods`` alone: METHODS or BASELINES. A latency
    that is missing, or was measured for other metrics than these, counts as unknown. Raises
    ArtifactError if metrics.json is missing."""
    found = read_json(path)
    timed = read_json(latency) if latency.exists() else {}
    same = timed.get("metrics_digest") == file_digest(path)
    return Measured(
        quality={method: found[method] for method in methods if method in found},
        latency=timed.get("methods", {}) if same else {},
        queries=found.get("queries", {}),
    )


def table(measured: Measured) -> Table:
    """A row a method, in the order they were read in: precision at every cut-off, hit at the one
    nearest to 10, map@R, milliseconds a query (search alone and with encoding), bytes an image;
    agreement and the share of invalid identifiers where they were measured."""
    columns = _columns(measured)
    rows = tuple(
        (EVERY[method], *(_text(cell(method), form) for cell, form in columns.values()))
        for method in measured.quality
    )
    unknown = not set(measured.quality) <= set(measured.latency)
    return Table(columns=("method", *columns), rows=rows, note=NOTE if unknown else "")


def cutoffs(measured: Measured) -> list[int]:
    """The cut-offs that precision was measured at, ascending."""
    keys = {key for values in measured.quality.values() for key in values}
    return sorted(int(key.split("/")[1]) for key in keys if key.startswith("precision/"))


def main_cutoff(measured: Measured) -> int:
    """The cut-off to speak of where there is room for one: the nearest to 10, else the smaller."""
    return metrics.main_cutoff(cutoffs(measured) or [10])


def text(shown: Table) -> str:
    """The table for a terminal, aligned, with its note below."""
    lines = [shown.columns, *shown.rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(shown.columns))]
    body = [
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])])
        for line in lines
    ]
    body.insert(1, "  ".join("─" * width for width in widths))
    return "\n".join([*body, shown.note] if shown.note else body)


def markdown(shown: Table) -> str:
    """The table in GitHub's markdown, with its note below."""
    rule = ("---", *["---:"] * (len(shown.columns) - 1))
    body = [f"| {' | '.join(line)} |" for line in (shown.columns, rule, *shown.rows)]
    return "\n".join([*body, "", shown.note] if shown.note else body)


def verdict(measured: Measured) -> str:
    """One or two plain sentences: generative search beside the exact scan of the tuned embeddings,
    re-ranking, and time if it is known. Empty if either method was not measured."""
    quality, key = measured.quality, f"precision/{main_cutoff(measured)}"
    if not all(key in quality.get(method, {}) for method in ("generative", "scan_tuned")):
        return ""
    own, scan = quality["generative"][key], quality["scan_tuned"][key]
    says = (
        f"Of the first {main_cutoff(measured)} images that generative search returns, "
        f"{own:.1%} are relevant, {_gap(own - scan)} the exact scan of the tuned embeddings "
        f"({scan:.1%})."
    )
    if "generative_reranked" in quality:
        reranked = quality["generative_reranked"][key]
        says += f" Re-ranked, its candidates reach {reranked:.1%}."
    if {"generative", "scan_tuned"} <= set(measured.latency):
        times = [measured.latency[method]["search_ms"] for method in ("generative", "scan_tuned")]
        says += " A query takes {} ms, the scan {} ms.".format(*map(_milliseconds, times))
    return says


def _gap(difference: float) -> str:
    points = round(abs(difference) * 100, 1)
    if points == 0:
        return "as many as by"
    return f"{points:.1f} points {'more than' if difference > 0 else 'less than'}"


Cell = Callable[[str], float | None]


def _columns(measured: Measured) -> dict[str, tuple[Cell, Callable[[float], str]]]:
    """Heading → (the number of a method, how it is written)."""

    def quality(key: str) -> Cell:
        return lambda method: measured.quality[method].get(key)

    def latency(key: str) -> Cell:
        return lambda method: measured.latency.get(method, {}).get(key)

    k = main_cutoff(measured)
    return {
        **{f"P@{c}": (quality(f"precision/{c}"), "{:.3f}".format) for c in cutoffs(measured)},
        f"hit@{k}": (quality(f"hit/{k}"), "{:.3f}".format),
        "mAP@R": (quality("map/R"), "{:.3f}".format),
        **{key.replace("/", "@"): (quality(key), "{:.3f}".format) for key in _others(measured)},
        "ms search": (latency("search_ms"), _milliseconds),
        "ms with encoding": (latency("total_ms"), _milliseconds),
        "bytes/image": (quality("bytes_per_image"), "{:,.0f}".format),
    }


def _others(measured: Measured) -> list[str]:
    """The metrics of some runs alone, in the order they were measured in."""
    every = dict.fromkeys(key for values in measured.quality.values() for key in values)
    return [key for key in every if key == "invalid" or key.startswith("agreement/")]


def _text(value: Any, form: Callable[[float], str]) -> str:
    return "–" if value is None else form(value)


def _milliseconds(value: float) -> str:
    """Three digits that matter: 0.042, 1.25, 12.5, 125."""
    digits = 3 if value < 0.1 else 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{digits}f}"
