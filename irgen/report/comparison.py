"""Compare search methods in one table: metrics and latency side by side."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from irgen.evaluation import metrics
from irgen.evaluation.table_format import render_text
from irgen.files.digests import file_digest
from irgen.files.records import read_json

METHODS = {  # titles of ``irgen.evaluation.methods.METHODS``
    "brute_force_pretrained": "brute force, pretrained features",
    "brute_force_tuned": "brute force, tuned embeddings",
    "classify_then_search": "classify, then search",
    "brute_force_codes": "brute force, codes only",
    "generative": "generative search",
    "generative_reranked": "generative search, re-ranked",
    "index": "the served index",
}
BASELINES = {
    "hnsw": "tuned embeddings by HNSW",
    "ivf_pq": "tuned embeddings by IVF-PQ",
    "scann": "tuned embeddings by ScaNN",
    "scann_like": "tuned embeddings by ScaNN's nearest faiss equivalent: "
    "4-bit PQ fast scan, re-ranked",
    "spann_like": "tuned embeddings by SPANN's nearest faiss equivalent: "
    "HNSW over centroids, closure lists in memory",
    "cgd": "CGD, brute force",
    "irt_r": "IRT_R, brute force",
}  # of the stage baselines; it measures one of the two ScaNN
TITLES = METHODS | BASELINES
SEARCHED = ("index", "generative_reranked", "generative")  # the first measured is what people use
BRUTE_FORCE = "brute_force_tuned"
EXTRA = {  # metrics that not every method or catalogue has
    "invalid": "invalid",
    "finds_itself": "finds itself",
    "finds_copies": "finds copies",
}
NOT_MEASURED = "–: not measured on this machine: dvc repro -sf evaluate"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Results of an evaluation: ``quality`` by method and metric; ``latency`` by method and time,
    empty if unknown; ``queries`` with count, without_positive and total."""

    quality: dict[str, dict[str, float]]
    latency: dict[str, dict[str, float]]
    queries: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class Table:
    """Cells as text. The first column holds titles, the others numbers; ``note`` may be empty."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str


def read(path: Path, latency: Path, methods: Mapping[str, str] = METHODS) -> Measured:
    """Read metrics.json and latency.json of ``methods``: METHODS or BASELINES. A latency that is
    missing, or belongs to other metrics, counts as unknown. Raises ArtifactError if metrics.json is
    missing."""
    quality = read_json(path)
    timed = read_json(latency) if latency.exists() else {}
    same = timed.get("metrics_digest") == file_digest(path)
    return Measured(
        quality={method: quality[method] for method in methods if method in quality},
        latency=timed.get("methods", {}) if same else {},
        queries=quality.get("queries", {}),
    )


def build_table(measured: Measured) -> Table:
    """Return the table with one row a method. Columns: precision at every cut-off, hit at the one
    nearest to 10, map@R; agreement and EXTRA if they were measured;
    milliseconds a query (search alone, and with encoding); bytes an image."""
    columns = _columns(measured)
    cells = list(columns.values())
    rows = tuple(
        (
            TITLES[method],
            *("–" if (value := cell(method)) is None else form(value) for cell, form in cells),
        )
        for method in measured.quality
    )
    unknown = not set(measured.quality) <= set(measured.latency)
    return Table(columns=("method", *columns), rows=rows, note=NOT_MEASURED if unknown else "")


def cutoffs(measured: Measured) -> list[int]:
    """Return the cut-offs of precision, ascending."""
    return _cutoffs(measured, "precision")


def _cutoffs(measured: Measured, metric: str) -> list[int]:
    keys = {key for values in measured.quality.values() for key in values}
    return sorted(int(key.split("/")[1]) for key in keys if key.startswith(f"{metric}/"))


def main_cutoff(measured: Measured) -> int:
    """Return the cut-off to show where there is room for one: the nearest to 10. Without labels it
    is one of agreement."""
    return metrics.main_cutoff(cutoffs(measured) or _cutoffs(measured, "agreement") or [10])


def format_table(table: Table) -> str:
    """Return the table for a terminal, with its note below."""
    body = render_text(table.columns, table.rows, right=table.columns[1:])
    return "\n".join([body, table.note] if table.note else [body])


def summarise(measured: Measured) -> str:
    """Return sentences about the method that people search with, or the nearest to it, compared
    with brute force on the tuned embeddings; empty if there is nothing to say."""
    quality, k = measured.quality, main_cutoff(measured)
    searched = next((m for m in SEARCHED if m in quality), None)
    for key, says in (
        (f"precision/{k}", "are relevant"),
        (f"agreement/{k}", f"are also among its {k} nearest by the pretrained encoder"),
    ):
        if searched is not None and key in quality[searched]:
            return _summarise(measured, searched, key, says)
    return ""


def _summarise(measured: Measured, searched: str, key: str, says: str) -> str:
    value, k = measured.quality[searched][key], key.split("/")[1]
    text = (
        f"Of the first {k} images that {TITLES[searched]} returns for a query, {value:.1%} {says}"
    )
    scan = measured.quality.get(BRUTE_FORCE, {}).get(key)
    if scan is None:
        return f"{text}."
    points = round(abs(value - scan) * 100, 1)
    more = "more" if value > scan else "less"
    gap = f"{points:.1f} points {more} than with" if points else "as many as with"
    text += f", {gap} brute-force search of the tuned embeddings ({scan:.1%})."
    if {searched, BRUTE_FORCE} <= set(measured.latency):
        times = [measured.latency[method]["search_ms"] for method in (searched, BRUTE_FORCE)]
        text += " A query takes {} ms, brute force {} ms.".format(*map(_milliseconds, times))
    return text


Cell = Callable[[str], float | None]


def _columns(measured: Measured) -> dict[str, tuple[Cell, Callable[[float], str]]]:
    """Map each heading to a function that returns a method's number, and to its format."""

    def quality(key: str) -> Cell:
        return lambda method: measured.quality[method].get(key)

    def latency(key: str) -> Cell:
        return lambda method: measured.latency.get(method, {}).get(key)

    k = main_cutoff(measured)
    keys = dict.fromkeys(key for values in measured.quality.values() for key in values)
    optional = [key for key in keys if key in EXTRA or key.startswith("agreement/")]
    columns: dict[str, tuple[Cell, Callable[[float], str]]] = {
        **{f"P@{c}": (quality(f"precision/{c}"), "{:.3f}".format) for c in cutoffs(measured)},
        f"hit@{k}": (quality(f"hit/{k}"), "{:.3f}".format),
        "mAP@R": (quality("map/R"), "{:.3f}".format),
        **{
            EXTRA.get(key, key.replace("/", "@")): (quality(key), "{:.3f}".format)
            for key in optional
        },
        "ms search": (latency("search_ms"), _milliseconds),
        "ms with encoding": (latency("total_ms"), _milliseconds),
        "bytes/image": (quality("bytes_per_image"), "{:,.0f}".format),
    }
    without_labels = {f"hit@{k}", "mAP@R"} if not cutoffs(measured) else set()
    return {name: column for name, column in columns.items() if name not in without_labels}


def _milliseconds(value: float) -> str:
    """Return three significant digits: 0.042, 1.25, 12.5, 125."""
    digits = 3 if value < 0.1 else 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{digits}f}"
