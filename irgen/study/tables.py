"""Tables of a comparison: a row a method or variant, each cell a mean ± deviation over seeds."""

from dataclasses import dataclass, replace

import numpy as np

from irgen.catalog.datasets.protocols import in_words
from irgen.report.comparison import EVERY
from irgen.study import results, significance
from irgen.study.plan import Plan
from irgen.study.results import Result, Spread

# Whose lists end with what was looked at, which is the largest cut-off's:
SHORT = ("hnsw", "ivf_pq", "scann", "scann_like", "spann_like")
SCAN, OWN, RERANKED, INDEX = "scan_tuned", "generative", "generative_reranked", "index"
IDENTIFIERS = "identifiers"  # the subject with a table of its own
READING = "reading"  # the subject of what candidates are re-ranked by
BETTER, WORSE = "▲", "▼"
MACHINE = ("autocast", "device", "processor", "threads")
ORDERS = {  # evaluate.order_by in words
    "identifier": "the whole identifier",
    "entry": "the first entry",
    "label": "the label of the first entry (of identifiers not the tokenizer's, that entry itself)",
}
READINGS = {  # evaluate.rerank_signal in words
    "entry": "",
    "label": ", of the tokenizer's identifiers by its label as the classifier reads the query",
    "both": ", of the tokenizer's identifiers by its label as classifier and retriever have it",
}
Found = dict[str, list[Result]]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A figure as it is written, ``mark`` saying whether it is significantly better or worse than
    the row that is the measure; ``best`` of its column. ``value`` over the seeds, and ``p`` after
    Holm's correction where it was tested, are for whoever goes on calculating."""

    text: str
    mark: str = ""
    best: bool = False
    value: Spread | None = None
    p: float | None = None


@dataclass(frozen=True, kw_only=True)
class Row:
    """``seeds`` of every cell; ``measure``: the row that others are tested against."""

    title: str
    cells: tuple[Cell, ...]
    seeds: tuple[int, ...]
    measure: bool = False


@dataclass(frozen=True, kw_only=True)
class Table:
    """``about``: what is to be known to read it."""

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    about: str


@dataclass(frozen=True, kw_only=True)
class Column:
    """``key`` of a metric, or of the latency; ``tested``: significance is told."""

    title: str
    key: str
    tested: bool = False
    form: str = ".3f"
    of: str = "metrics"
    method: str = ""  # another one than the row's


TESTED = (
    Column(title="P@1", key="precision/1", tested=True),
    Column(title="P@10", key="precision/10", tested=True),
    Column(title="P@20", key="precision/20", tested=True),
    Column(title="mAP@R", key="map/R", tested=True),
)
AS_RERANKED = tuple(
    replace(column, title=f"re-ranked {column.title}", method=RERANKED) for column in TESTED
)
COST = (
    Column(title="ms search", key="search_ms", of="latency", form=".2f"),
    Column(title="ms with encoding", key="total_ms", of="latency", form=".2f"),
    Column(title="bytes/image", key="bytes_per_image", form=",.0f"),
)


def methods(found: Found, plan: Plan) -> Table:
    """Every search method of the standard variant, tested against the exact scan of the tuned
    embeddings."""
    standard = found[plan.standard]
    hit = Column(title="hit@10", key="hit/10", tested=True)
    agreement = Column(title="agreement@10", key="agreement/10")
    columns = (*TESTED[:3], hit, TESTED[3], agreement, *COST)
    names = [name for name in EVERY if all(name in each.metrics for each in standard)]
    for name in EVERY:
        if name not in names and any(name in each.metrics for each in standard):
            print(f"{EVERY[name]} is left out: it was not measured with every seed")
    entries = [Entry(EVERY[name], standard, name, name == SCAN) for name in names]
    made, about = _table("methods", "Methods", columns, entries), standard[0].about
    least, most = about["relevant"]
    told = f" {about['images']['queries']:,} queries on {about['images']['database']:,} images"
    many = f"{least:,}" if least == most else f"{least:,} to {most:,}"
    told += f", of which {many} are relevant to each" if most else ""
    return replace(made, about=f"{made.about}{told}. Times: {machines(standard)}.")


def machines(found: list[Result]) -> str:
    """What the times of results were measured on, in words."""
    told = (
        ", ".join(
            f"{key} {value}"
            for key, value in sorted(each.about["machine"].items())
            if key in MACHINE
        )
        for each in found
    )
    return "; ".join(dict.fromkeys(told))


def identifiers(found: Found, plan: Plan) -> Table:
    """Generative search by rule of the identifiers; codes of each rule beside it, and how it is
    re-ranked, which is not the same for all if it is by label."""
    rows = [name for name in found if plan.variants[name].table == IDENTIFIERS]
    columns = (
        *TESTED,
        *AS_RERANKED,
        Column(title="distinct codes", key="distinct_codes", of="identifiers", form=",.0f"),
        Column(title="images/code", key="images_a_code", of="identifiers", form=".2f"),
    )
    made = _table("identifiers", "Identifiers", columns, _variants(found, plan, rows))
    settings = found[plan.standard][0].about["params"]
    told = f" Not re-ranked: by the log-probability of {ORDERS[settings['evaluate.order_by']]}"
    told += f", then by cosine. Re-ranked: by cosine + {settings['evaluate.rerank_weight']:g} × "
    told += "the first entry's log-probability"
    if reading := READINGS[settings["evaluate.rerank_signal"]]:
        told += f"{reading}, of others as written"
    return replace(made, about=f"{made.about}{told}.")


def ablations(found: Found, plan: Plan) -> list[Table]:
    """A table for each other subject of the variants, the standard variant first, with the seeds
    of the others: generative search, and beside it what else a variant may have changed. A variant
    that the set's settings are already has no row."""
    written = (*TESTED, *(replace(AS_RERANKED[i], tested=False) for i in (1, 3)))
    columns = (
        Column(title="index P@10", key="precision/10", method=INDEX),
        Column(title="tuned scan P@10", key="precision/10", method=SCAN),
        Column(title="tuned scan mAP@R", key="map/R", method=SCAN),
        Column(title="invalid", key="invalid"),
        COST[0],
    )
    others = [name for name in found if not _is_standard(found[name], found[plan.standard])]
    subjects = dict.fromkeys(plan.variants[name].table for name in others)
    tables = []
    for subject in (each for each in subjects if each != IDENTIFIERS):
        names = [name for name in others if plan.variants[name].table == subject]
        entries = _variants(found, plan, [plan.standard, *names])
        name = subject.lower().replace(" ", "-")
        quality = AS_RERANKED if subject == READING else written
        tables.append(_table(name, f"Ablation: {subject}", (*quality, *columns), entries))
    return tables


def _is_standard(variant: list[Result], standard: list[Result]) -> bool:
    """Whether a variant changes nothing of the settings that the standard one has."""
    own, other = (results[0].about["params"] | {"seed": 0} for results in (variant, standard))
    return own == other


@dataclass(frozen=True)
class Entry:
    """What a row is made of."""

    title: str
    found: list[Result]
    method: str
    measure: bool


def _variants(found: Found, plan: Plan, names: list[str]) -> list[Entry]:
    """The variants as rows, the standard one with the seeds that the others have too."""
    others = [name for name in names if name != plan.standard]
    seeds = {each.point.seed for name in others for each in found[name]}
    entries = []
    for name in names:
        kept = [each for each in found[name] if not seeds or each.point.seed in seeds]
        if kept:
            entries.append(Entry(plan.variants[name].title, kept, OWN, name == plan.standard))
    return entries


def _table(name: str, title: str, columns: tuple[Column, ...], entries: list[Entry]) -> Table:
    """The table, without columns that nothing was measured of."""
    columns = tuple(each for each in columns if any(_value(each, entry) for entry in entries))
    values = [[_value(column, entry) for column in columns] for entry in entries]
    marks = [_marks(column, entries) for column in columns]
    rows = []
    for i, entry in enumerate(entries):
        cells = tuple(
            Cell(
                text=written(value, column.form),
                mark=marks[j][i].mark if i in marks[j] else "",
                best=_is_best(value, [line[j] for line in values], column),
                value=value,
                p=marks[j][i].p if i in marks[j] else None,
            )
            for j, (column, value) in enumerate(zip(columns, values[i], strict=True))
        )
        seeds = tuple(each.point.seed for each in entry.found)
        rows.append(Row(title=entry.title, cells=cells, seeds=seeds, measure=entry.measure))
    measure = next((entry.title for entry in entries if entry.measure), "")
    about = entries[0].found[0].about
    return Table(
        name=name,
        title=title,
        columns=tuple(column.title for column in columns),
        rows=tuple(rows),
        about=(
            f"{_spoken(rows)}; protocol {in_words(about['protocol'])}. {_tested(measure, rows)}"
            "–: not measured, or of lists too short for it."
        ),
    )


def _spoken(rows: list[Row]) -> str:
    """What a cell is."""
    if _has_deviations(rows):
        return "Mean ± standard deviation over the seeds named"
    return "Of the one seed named, so that nothing is known of how training again would move it"


def _tested(measure: str, rows: list[Row]) -> str:
    """What the marks say, if there is a row that others are measured by."""
    if not measure:
        return ""
    each = "with every seed and " if _has_deviations(rows) else ""
    return (
        f"{BETTER} {WORSE}: better or worse than “{measure}”, {each}by a paired "
        f"randomisation test over the queries (p < {significance.LEVEL} after Holm's correction "
        "within the column), which says something of these trained models, not of training them "
        "again. "
    )


def _has_deviations(rows: list[Row]) -> bool:
    return any(len(row.seeds) > 1 for row in rows)


def _value(column: Column, entry: Entry) -> Spread | None:
    method = column.method or entry.method
    if _is_short(column, entry):
        return None
    if column.of == "latency":
        timed = [each.latency.get(method, {}).get(column.key) for each in entry.found]
        known = [value for value in timed if value is not None]
        return results.spread(known) if known else None
    if column.of == "identifiers":
        return results.spread([each.about["identifiers"][column.key] for each in entry.found])
    return results.over_seeds(entry.found, method, column.key)


@dataclass(frozen=True)
class Marked:
    """What the test says of a cell."""

    mark: str
    p: float


def _marks(column: Column, entries: list[Entry]) -> dict[int, Marked]:
    """BETTER or WORSE by the number of the row, where the difference is significant and of the
    same sign with every seed. None of a row whose seeds asked other queries."""
    measure = next((entry for entry in entries if entry.measure), None)
    if not column.tested or measure is None:
        return {}
    values, gains = {}, {}
    for i, entry in enumerate(entries):
        own, other = results.alike(entry.found, measure.found)
        first = results.by_query(own, column.method or entry.method, column.key)
        second = results.by_query(other, column.method or measure.method, column.key)
        if entry is measure or _is_short(column, entry) or first is None or second is None:
            continue
        if (both := results.paired(first, second)) is None or not _same_asked(own, other):
            continue
        values[str(i)] = significance.p_value(*both)
        gains[i] = [
            mine - theirs
            for mine, theirs in zip(
                _each(own, column, entry), _each(other, column, measure), strict=True
            )
        ]
    told = significance.corrected(values)
    marked = {}
    for i, gain in gains.items():
        p = told[str(i)]
        clear = p < significance.LEVEL and len({np.sign(each) for each in gain}) == 1
        mark = (BETTER if gain[0] > 0 else WORSE) if clear else ""
        marked[i] = Marked(mark, p)
    return marked


def _same_asked(first: list[Result], second: list[Result]) -> bool:
    """Whether two rows asked the same, seed by seed."""
    return [each.about["asked"] for each in first] == [each.about["asked"] for each in second]


def _each(found: list[Result], column: Column, entry: Entry) -> list[float]:
    """The means over the queries, seed by seed."""
    method = column.method or entry.method
    return [each.metrics[method][column.key] for each in found]


def _is_short(column: Column, entry: Entry) -> bool:
    """Whether the method returns no more images than it looks at, and there are more to be found,
    so that a metric of deep lists would tell how many these are."""
    if column.key != "map/R" or entry.method not in SHORT:
        return False
    abouts = [each.about for each in entry.found]
    return any(each["relevant"][1] > max(each["params"]["evaluate.cutoffs"]) for each in abouts)


def _is_best(value: Spread | None, others: list[Spread | None], column: Column) -> bool:
    """Whether no other figure of the column reads higher."""
    known = [f"{other.mean:{column.form}}" for other in others if other is not None]
    if value is None or len(known) < 2 or not column.tested:
        return False
    return f"{value.mean:{column.form}}" == max(known, key=float)


def written(value: Spread | None, form: str) -> str:
    """A figure in text: ``0.912 ± 0.004``, without the deviation if it is of one seed.

    >>> written(Spread(mean=0.5, deviation=0.25), ".2f"), written(None, ".2f")
    ('0.50 ± 0.25', '–')
    """
    if value is None:
        return "–"
    if value.deviation is None:
        return f"{value.mean:{form}}"
    return f"{value.mean:{form}} ± {value.deviation:{form}}"


def all_of(found: Found, plan: Plan) -> list[Table]:
    """Every table that the results there are allow."""
    tables = [methods(found, plan)]
    if sum(plan.variants[name].table == IDENTIFIERS for name in found) > 1:
        tables.append(identifiers(found, plan))
    return tables + ablations(found, plan)
