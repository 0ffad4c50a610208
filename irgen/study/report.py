"""Write the report of a set's comparison: tables in three formats, figures and a page."""

import json
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from irgen.catalog.datasets.protocols import describe_protocol
from irgen.catalog.images.decode import decode_stored
from irgen.catalog.shards import Images
from irgen.catalog.table import read_table
from irgen.catalog.thumbnails import SIDE
from irgen.evaluation.query_set import QuerySet
from irgen.files.atomic import atomic, write_bytes
from irgen.files.records import write_json
from irgen.files.sealed import read_parquet
from irgen.report import figures, gallery, page
from irgen.report.comparison import TITLES
from irgen.report.figures import Line, Plot
from irgen.study import difficulty, formats, gains, results, tables
from irgen.study.code_pictures import CodePictures, draw_code_pictures
from irgen.study.plan import TABLES, Plan, Trial
from irgen.study.results import Result
from irgen.study.tables import (
    BRUTE_FORCE,
    GENERATIVE,
    HIT,
    INDEX,
    RERANKED,
    TESTED,
    Results,
    Table,
)
from irgen.study.trial import images_folder, results_folder

CURVES = (
    GENERATIVE,
    RERANKED,
    BRUTE_FORCE,
    "brute_force_pretrained",
    "brute_force_codes",
    "cgd",
    "irt_r",
)
GALLERY = (GENERATIVE, RERANKED, BRUTE_FORCE)
SUMMARIZED = {column.title for column in (*TESTED, HIT)}
DEPTH, EXAMPLES = 10, 9


@dataclass(frozen=True, kw_only=True)
class Content:
    """Content of the page. ``gallery`` and ``code_pictures`` show the trial with ``seed``."""

    name: str
    summary: list[str]
    facts: dict[str, str]
    tables: list[Table]
    figures: dict[str, bytes]
    code_pictures: list[CodePictures]
    gallery: list[gallery.Example]
    variants: dict[str, str]
    params: dict[str, Any]
    seed: int
    k: int


def write_report(root: Path, plan: Plan, set_name: str) -> Path:
    """Write ``experiments/tables/<set>/`` (comparison.md, .tex and .json, curves.csv, figures) and
    the page ``reports/comparison-<set>.html``, which contains images. Return the folder. Raises
    ArtifactError if nothing was measured yet."""
    loaded = results.load_results(root, plan, set_name)
    content = _gather(root, plan, set_name, loaded)
    folder = root / TABLES / set_name
    with atomic(folder) as temporary:
        (temporary / "figures").mkdir(parents=True)
        for title, svg in content.figures.items():
            (temporary / "figures" / f"{title}.svg").write_bytes(svg)
        for suffix, render in formats.FORMATS.items():
            text = "\n".join(render(table) for table in content.tables)
            write_bytes(temporary / f"comparison.{suffix}", text.encode())
        write_json(temporary / "comparison.json", [asdict(table) for table in content.tables])
        mean_curves(root, loaded[plan.standard]).write_csv(temporary / "curves.csv")
    html = page.fill_template(
        resources.files("irgen.study").joinpath("comparison.html").read_text("utf-8"),
        content=content,
        definitions=page.DEFINITIONS,
        format_seeds=formats.format_seeds,
    )
    write_bytes(page_path(root, set_name), html.encode())
    return folder


def page_path(root: Path, set_name: str) -> Path:
    """Return the path of a set's page."""
    return root / "reports" / f"comparison-{set_name}.html"


def _gather(root: Path, plan: Plan, set_name: str, loaded: Results) -> Content:
    built, first = gather_tables(root, plan, loaded), loaded[plan.standard][0]
    variants = plan.variants.values()
    return Content(
        name=set_name,
        summary=summarize(built[0]),
        facts=_describe(loaded, plan),
        tables=built,
        figures=draw_figures(root, loaded, plan),
        code_pictures=_show_codes(root, first.trial),
        gallery=_show_queries(root, first.trial),
        variants={v.title: json.dumps(v.changes) if v.changes else "nothing" for v in variants},
        params=first.facts["params"],
        seed=first.trial.seed,
        k=DEPTH,
    )


def gather_tables(root: Path, plan: Plan, loaded: Results) -> list[Table]:
    """Return every table that the results allow, in the order of the page: methods, gains,
    difficulty, identifiers, ablations."""
    methods, *others = tables.build_tables(loaded, plan)
    standard = loaded[plan.standard]
    grouped = {"difficulty": ("Difficulty", standard)}
    for name in loaded:
        if plan.variants[name].table == tables.NEW_LABELS:
            grouped[name] = (plan.variants[name].title, loaded[name])
    by_group = [
        table
        for name, (title, measured) in grouped.items()
        for table in difficulty.build_difficulty(
            name, title, measured, [difficulty.load_groups(root, result) for result in measured]
        )
    ]
    return [methods, *gains.build_gains(standard), *by_group, *others]


def summarize(methods: Table) -> list[str]:
    """Describe the served index and generative search alone, each in a sentence: their figures in
    the methods' table beside those of brute-force search."""
    rows = {row.title: row for row in methods.rows}
    scan = rows.get(TITLES[BRUTE_FORCE])
    marks = {tables.BETTER: "better", tables.WORSE: "worse"}
    sentences = []
    for title in (TITLES[INDEX], TITLES[GENERATIVE]):
        if title not in rows or scan is None:
            continue
        parts = [
            f"{column} {cell.text} beside {brute_force.text} "
            f"({marks.get(cell.mark, 'no significant difference')})"
            for column, cell, brute_force in zip(
                methods.columns, rows[title].cells, scan.cells, strict=True
            )
            if column in SUMMARIZED
        ]
        if parts:
            name = title[0].upper() + title[1:]
            sentences.append(f"{name}, and {TITLES[BRUTE_FORCE]}: {'; '.join(parts)}.")
    return sentences


def _describe(loaded: Results, plan: Plan) -> dict[str, str]:
    standard = loaded[plan.standard]
    facts, images = standard[0].facts, standard[0].facts["images"]
    every = [result for variant in loaded.values() for result in variant]
    seconds = sum(sum(result.seconds.values()) for result in standard)
    return {
        "Protocol": describe_protocol(facts["protocol"]),
        "Images": f"{images['database']:,} in the database, {images['queries']:,} queries, "
        f"trained on {images['train']:,}",
        "Compared": f"{len(loaded)} variants, {len(every)} trainings and evaluations",
        "Seeds": formats.format_seeds(tuple(result.trial.seed for result in standard)),
        "Minutes": f"{seconds / 60:.0f} for the standard variant, all seeds together",
        "Times measured on": tables.describe_machines(every),
    }


def draw_figures(root: Path, loaded: Results, plan: Plan) -> dict[str, bytes]:
    """Return the figures that show something by name, in the order of the page."""
    standard = loaded[plan.standard]
    curves = mean_curves(root, standard)
    rules = [name for name in loaded if plan.variants[name].table == tables.IDENTIFIERS]
    codes = read_parquet(results_folder(root, standard[0].trial) / "codes.parquet")
    precision = Plot(title="precision over k", x="k, images returned", share=True)
    recall = Plot(title="precision over recall", x="recall", share=True, floor=0)
    latency = Plot(
        title="precision@10 over latency", x="milliseconds a query, search alone", share=True
    )
    memory = Plot(title="precision@10 over memory", x="bytes an image", share=True)
    drawn = {
        "precision_over_k": _draw_curves(curves, "precision", precision),
        "precision_recall": _draw_curves(curves, "recall", recall),
        "latency": _draw_cost(standard, "search_ms", latency),
        "bytes": _draw_cost(standard, "bytes_per_image", memory),
        "codes_used": figures.codes_used(
            [plan.variants[rule].title for rule in rules],
            [_codes_used(loaded[rule][0].facts["identifiers"]) for rule in rules],
        ),
        "code_groups": figures.code_group_sizes(
            codes.select(pl.selectors.starts_with("level_")).to_numpy()
        ),
    }
    return {name: svg for name, svg in drawn.items() if svg is not None}


def mean_curves(root: Path, standard: list[Result]) -> pl.DataFrame:
    """Average every method's curves over the seeds: method, curve (precision or recall), x, y."""
    folders = [results_folder(root, result.trial) for result in standard]
    return (
        pl.concat([read_parquet(folder / "curves.parquet") for folder in folders])
        .group_by("method", "curve", "x", maintain_order=True)
        .agg(pl.col("y").mean())
    )


def _draw_curves(curves: pl.DataFrame, curve: str, plot: Plot) -> bytes | None:
    rows = curves.filter(pl.col("curve") == curve).sort("x")
    parts = {method: rows.filter(pl.col("method") == method) for method in CURVES}
    series = [
        Line(name=TITLES[method], x=part["x"].to_list(), y=part["y"].to_list())
        for method, part in parts.items()
        if len(part)
    ]
    return figures.lines(plot, series)


def _draw_cost(standard: list[Result], key: str, plot: Plot) -> bytes:
    """Draw every method's precision@10 over its cost: a ``key`` of its metrics or its latency."""
    points = []
    for method in TITLES:
        quality = results.over_seeds(standard, method, "precision/10")
        costs = [(r.metrics.get(method, {}) | r.latency.get(method, {})).get(key) for r in standard]
        measured = [cost for cost in costs if cost is not None]
        if quality is not None and measured:
            name = method.replace("_", " ")  # short: the tables have the full titles
            points.append(Line(name=name, x=[float(np.median(measured))], y=[quality.mean]))
    return figures.scatter(plot, points)


def _codes_used(spread: dict[str, float]) -> list[float]:
    """Return the number of codes in use of each level."""
    names = [name for name in spread if name.startswith("codes_used/")]
    return [spread[name] for name in sorted(names, key=lambda name: int(name.rsplit("_", 1)[1]))]


def _show_codes(root: Path, trial: Trial) -> list[CodePictures]:
    folder = results_folder(root, trial)
    table = read_table(folder / "database.table.parquet")
    codes = read_parquet(folder / "codes.parquet")
    return draw_code_pictures(codes, table, _thumbnails(root, trial), trial.seed)


def _show_queries(root: Path, trial: Trial) -> list[gallery.Example]:
    """Choose queries by how well generative search answers them; return them with their results."""
    folder = results_folder(root, trial)
    queries, database = (
        read_table(folder / f"{name}.table.parquet") for name in ("queries", "database")
    )
    runs = {method: read_parquet(folder / "runs" / f"{method}.parquet") for method in GALLERY}
    shown = {TITLES[method]: run.filter(pl.col("rank") <= DEPTH) for method, run in runs.items()}
    thumbnail = _thumbnails(root, trial)
    return gallery.choose_examples(
        QuerySet.build(queries, database, DEPTH),
        shown,
        thumbnail,
        k=DEPTH,
        count=EXAMPLES,
        seed=trial.seed,
    )


def _thumbnails(root: Path, trial: Trial) -> gallery.Thumbnail:
    images = Images(images_folder(root, trial.set))
    return lambda sha256: gallery.thumbnail(decode_stored(images, sha256, 3, SIDE).image)
