"""Build the tables of a comparison: rows of methods or variants, cells of means over seeds."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from irgen.catalog.datasets.protocols import describe_protocol
from irgen.report.comparison import TITLES
from irgen.study import results, significance
from irgen.study.plan import Plan
from irgen.study.results import MethodResults, Result, Spread

# These methods return no more images than the largest cut-off:
SHORT_LISTS = ("hnsw", "ivf_pq", "scann", "scann_like", "spann_like")
BRUTE_FORCE, GENERATIVE, RERANKED, INDEX = (
    "brute_force_tuned",
    "generative",
    "generative_reranked",
    "index",
)
IDENTIFIERS = "identifiers"  # these variants have a table of their own
RERANKING = "re-ranking"  # this ablation compares ways of re-ranking
NEW_LABELS = "new labels"  # these variants are measured by groups of queries
BETTER, WORSE = "▲", "▼"
MACHINE = ("autocast", "device", "processor", "threads")
Results = dict[str, list[Result]]  # by variant


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A figure as ``text``. ``mark``: significantly better or worse than the reference row.
    ``best`` of its column. ``value`` over the seeds, and ``p`` after Holm's correction."""

    text: str
    mark: str = ""
    best: bool = False
    value: Spread | None = None
    p: float | None = None


@dataclass(frozen=True, kw_only=True)
class Row:
    """A method or variant over ``seeds``. Other rows are tested against the ``reference``."""

    title: str
    cells: tuple[Cell, ...]
    seeds: tuple[int, ...]
    reference: bool = False


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table with a ``note`` that says how to read it."""

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    note: str


@dataclass(frozen=True, kw_only=True)
class Column:
    """A metric by its ``key``. ``source``: metrics, latency or identifiers. ``tested``: significant
    differences are marked. ``method``: take the metric from this method, not from the row's."""

    title: str
    key: str
    tested: bool = False
    format: str = ".3f"
    source: str = "metrics"
    method: str = ""


@dataclass(frozen=True)
class RowSource:
    """Source of a row: a ``method`` in ``results``, one for each seed."""

    title: str
    results: list[Result]
    method: str
    reference: bool

    @property
    def seeds(self) -> tuple[int, ...]:
        """Return the seeds of the results."""
        return tuple(result.trial.seed for result in self.results)


TESTED = (
    Column(title="P@1", key="precision/1", tested=True),
    Column(title="P@10", key="precision/10", tested=True),
    Column(title="P@20", key="precision/20", tested=True),
    Column(title="mAP@R", key="map/R", tested=True),
)
HIT = Column(title="hit@10", key="hit/10", tested=True)
PAPER = tuple(  # comparable with the paper's tables
    Column(title=f"P@{k}, paper's rule", key=f"precision_irgen/{k}") for k in (10, 20)
)
AS_RERANKED = tuple(
    replace(column, title=f"re-ranked {column.title}", method=RERANKED) for column in TESTED
)
COST = (
    Column(title="ms search", key="search_ms", source="latency", format=".2f"),
    Column(title="ms with encoding", key="total_ms", source="latency", format=".2f"),
    Column(title="bytes/image", key="bytes_per_image", format=",.0f"),
)


def build_tables(loaded: Results, plan: Plan) -> list[Table]:
    """Return every table that the results allow, the methods' table first."""
    tables = [build_methods(loaded, plan)]
    if sum(plan.variants[name].table == IDENTIFIERS for name in loaded) > 1:
        tables.append(build_identifiers(loaded, plan))
    return tables + build_ablations(loaded, plan)


def build_methods(loaded: Results, plan: Plan) -> Table:
    """Return the table of search methods of the standard variant. Methods are tested against
    brute-force search of the tuned embeddings."""
    standard = loaded[plan.standard]
    agreement = Column(title="agreement@10", key="agreement/10")
    columns = (*TESTED[:3], HIT, TESTED[3], agreement, *PAPER, *COST)
    sources = []
    for name, title in TITLES.items():
        measured = [result for result in standard if name in result.metrics]
        if measured:
            sources.append(RowSource(title, measured, name, name == BRUTE_FORCE))
    table, facts = _build_table("methods", "Methods", columns, sources), standard[0].facts
    least, most = facts["relevant"]
    note = f" {facts['images']['queries']:,} queries on {facts['images']['database']:,} images"
    relevant = f"{least:,}" if least == most else f"{least:,} to {most:,}"
    note += f", of which {relevant} are relevant to each" if most else ""
    return replace(table, note=f"{table.note}{note}. Times: {describe_machines(standard)}.")


def describe_machines(loaded: list[Result]) -> str:
    """Describe the machines that times were measured on."""
    machines = [result.facts["machine"] for result in loaded]
    texts = [
        ", ".join(f"{key} {machine[key]}" for key in MACHINE if key in machine)
        for machine in machines
    ]
    return "; ".join(dict.fromkeys(texts))


def build_identifiers(loaded: Results, plan: Plan) -> Table:
    """Return the table of generative search, re-ranked and not: one row a kind of identifier."""
    names = [name for name in loaded if plan.variants[name].table == IDENTIFIERS]
    columns = (
        *TESTED,
        *AS_RERANKED,
        Column(title="distinct codes", key="distinct_codes", source="identifiers", format=",.0f"),
        Column(title="images/code", key="images_a_code", source="identifiers", format=".2f"),
    )
    sources = _variant_sources(loaded, plan, names)
    table = _build_table("identifiers", "Identifiers", columns, sources)
    hedge = loaded[plan.standard][0].facts["params"]["evaluate.hedge"]
    note = " Not re-ranked: by the log-probability of the code, then by cosine. Re-ranked: by the "
    note += f"probability of the query's label, with a hedge of {hedge:g}; other identifiers than "
    note += "the tokenizer's by cosine"
    return replace(table, note=f"{table.note}{note}.")


def build_ablations(loaded: Results, plan: Plan) -> list[Table]:
    """Return a table for each ablation: the standard variant first, with the seeds of the others. A
    variant that equals the set's own settings has no row."""
    quality = (*TESTED, *(replace(AS_RERANKED[i], tested=False) for i in (1, 3)))
    columns = (
        Column(title="index P@10", key="precision/10", method=INDEX),
        Column(title="brute force P@10", key="precision/10", method=BRUTE_FORCE),
        Column(title="brute force mAP@R", key="map/R", method=BRUTE_FORCE),
        Column(title="invalid", key="invalid"),
        COST[0],
    )
    standard = _settings(loaded[plan.standard])
    changed = [name for name in loaded if _settings(loaded[name]) != standard]
    tables = []
    for subject in dict.fromkeys(plan.variants[name].table for name in changed):
        if subject in (IDENTIFIERS, NEW_LABELS):
            continue
        names = [name for name in changed if plan.variants[name].table == subject]
        sources = _variant_sources(loaded, plan, [plan.standard, *names])
        metrics = AS_RERANKED if subject == RERANKING else quality
        name = subject.lower().replace(" ", "-")
        tables.append(_build_table(name, f"Ablation: {subject}", (*metrics, *columns), sources))
    return tables


def _settings(variant: list[Result]) -> dict[str, Any]:
    return variant[0].facts["params"] | {"seed": 0}


def _variant_sources(loaded: Results, plan: Plan, names: list[str]) -> list[RowSource]:
    """Return the variants as rows, the standard one with the seeds that the others have too."""
    ablated = [name for name in names if name != plan.standard]
    seeds = {result.trial.seed for name in ablated for result in loaded[name]}
    sources = []
    for name in names:
        shared = [result for result in loaded[name] if not seeds or result.trial.seed in seeds]
        if shared:
            title = plan.variants[name].title
            sources.append(RowSource(title, shared, GENERATIVE, name == plan.standard))
    return sources


def _build_table(
    name: str, title: str, columns: tuple[Column, ...], sources: list[RowSource]
) -> Table:
    """Return the table, without columns in which nothing was measured."""
    columns = tuple(c for c in columns if any(_read_value(c, source) for source in sources))
    cells = [_build_cells(column, sources) for column in columns]
    rows = [
        Row(
            title=source.title,
            cells=tuple(column[i] for column in cells),
            seeds=source.seeds,
            reference=source.reference,
        )
        for i, source in enumerate(sources)
    ]
    reference = next((source.title for source in sources if source.reference), "")
    protocol = describe_protocol(sources[0].results[0].facts["protocol"])
    return Table(
        name=name,
        title=title,
        columns=tuple(column.title for column in columns),
        rows=tuple(rows),
        note=f"{_explain_cells(rows)}; protocol {protocol}. {_explain_marks(reference, rows)}"
        "–: not measured, or of lists too short for it.",
    )


def _build_cells(column: Column, sources: list[RowSource]) -> list[Cell]:
    """Return a column's cells, one a row."""
    values = [_read_value(column, source) for source in sources]
    marks = _test_column(column, sources)
    means = [f"{value.mean:{column.format}}" if value else "" for value in values]
    numbers = [mean for mean in means if mean]
    best = max(numbers, key=float) if column.tested and len(numbers) > 1 else None
    return [
        Cell(
            text=format_spread(value, column.format),
            mark=marks[i][0] if i in marks else "",
            best=means[i] == best,
            value=value,
            p=marks[i][1] if i in marks else None,
        )
        for i, value in enumerate(values)
    ]


def _explain_cells(rows: list[Row]) -> str:
    if _has_deviations(rows):
        return "Mean ± standard deviation over the seeds named"
    return "Of the one seed named: how much it varies from training to training is not known"


def _explain_marks(reference: str, rows: list[Row]) -> str:
    """Explain the marks; return nothing if there is no reference row."""
    if not reference:
        return ""
    seeds = "queries and seeds" if _has_deviations(rows) else "the queries"
    return (
        f"{BETTER} {WORSE}: better or worse than “{reference}”, by a paired bootstrap over {seeds} "
        f"(p < {significance.LEVEL} after Holm's correction within the column). "
    )


def _has_deviations(rows: list[Row]) -> bool:
    return any(len(row.seeds) > 1 for row in rows)


def _read_value(column: Column, source: RowSource) -> Spread | None:
    method = column.method or source.method
    if _is_too_short(column, source):
        return None
    if column.source == "latency":
        times = [result.latency.get(method, {}).get(column.key) for result in source.results]
        measured = [time for time in times if time is not None]
        return results.spread(measured) if measured else None
    if column.source == "identifiers":
        return results.spread([r.facts["identifiers"][column.key] for r in source.results])
    return results.over_seeds(source.results, method, column.key)


def _test_column(column: Column, sources: list[RowSource]) -> dict[int, tuple[str, float]]:
    """Return a mark and a p value by row. The mark is BETTER or WORSE if the difference to the
    reference is significant. A row with other queries has neither."""
    reference = next((source for source in sources if source.reference), None)
    if not column.tested or reference is None:
        return {}
    p_values, gains = {}, {}
    for i, source in enumerate(sources):
        if source is reference or _is_too_short(column, source):
            continue
        first, second = (
            MethodResults(column.method or row.method, row.results) for row in (source, reference)
        )
        differences = results.subtract(first, second, column.key)
        if differences is not None:
            gains[i] = float(np.nanmean(differences))
            p_values[i] = significance.p_value(significance.resample(differences))
    corrected = significance.corrected(p_values)
    return {i: (choose_mark(corrected[i], gains[i]), corrected[i]) for i in corrected}


def choose_mark(p: float, gain: float) -> str:
    """Return BETTER or WORSE for a significant ``gain``, else nothing."""
    if p >= significance.LEVEL:
        return ""
    return BETTER if gain > 0 else WORSE


def _is_too_short(column: Column, source: RowSource) -> bool:
    """Tell whether the method returns too few images to measure this metric."""
    if column.key != "map/R" or source.method not in SHORT_LISTS:
        return False
    rows = [result.facts for result in source.results]
    return any(facts["relevant"][1] > max(facts["params"]["evaluate.cutoffs"]) for facts in rows)


def format_spread(value: Spread | None, number_format: str) -> str:
    """Format a figure as ``0.912 ± 0.004``, or without deviation if there is one seed.

    >>> format_spread(Spread(mean=0.5, deviation=0.25), ".2f"), format_spread(None, ".2f")
    ('0.50 ± 0.25', '–')
    """
    if value is None:
        return "–"
    if value.deviation is None:
        return f"{value.mean:{number_format}}"
    return f"{value.mean:{number_format}} ± {value.deviation:{number_format}}"
