"""A set's comparison as people read it: tables in three forms, figures, a page with pictures."""

import json
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from irgen.catalog.datasets.protocols import in_words
from irgen.catalog.images import decode
from irgen.catalog.shards import Images
from irgen.catalog.table import read_table
from irgen.files import atomic, write_bytes, write_json
from irgen.report import figures, gallery, page
from irgen.report.comparison import EVERY
from irgen.report.figures import Line, Plot
from irgen.study import code_pictures, formats, results, tables
from irgen.study.code_pictures import Branch
from irgen.study.plan import TABLES, Plan, Trial
from irgen.study.tables import OWN, RERANKED, SCAN, Found, Table
from irgen.study.trial import images_of, results_of

CURVES = (OWN, RERANKED, SCAN, "scan_pretrained", "scan_codes", "cgd", "irt_r")
SHOWN = (OWN, RERANKED, SCAN)
TOLD = ("P@", "hit@", "mAP")  # columns that are spoken of
DEPTH, EXAMPLES = 10, 9


@dataclass(frozen=True, kw_only=True)
class Content:
    """What the page tells; ``verdicts`` are sentences, ``gallery`` and ``branches`` of ``seed``."""

    name: str
    verdicts: list[str]
    facts: dict[str, str]
    tables: list[Table]
    figures: dict[str, bytes]
    branches: list[Branch]
    gallery: list[gallery.Example]
    variants: dict[str, str]
    params: dict[str, Any]
    seed: int
    k: int


def write(root: Path, plan: Plan, name: str) -> Path:
    """Writes ``experiments/tables/<set>/``: comparison.md, .tex and .json, curves.csv and figures;
    and ``reports/comparison-<set>.html``, which has images of the set in it. Returns the folder.
    Raises ArtifactError if nothing was measured yet."""
    found = results.there(root, plan, name)
    made = tables.all_of(found, plan)
    standard = found[plan.standard]
    drawn = draw(root, found, plan, name)
    first = standard[0].point
    content = Content(
        name=name,
        verdicts=verdicts(made),
        facts=facts(found, plan),
        tables=made,
        figures=drawn,
        branches=branches(root, first),
        gallery=examples(root, first),
        variants={
            variant.title: json.dumps(variant.changes) if variant.changes else "nothing"
            for variant in plan.variants.values()
        },
        params=standard[0].about["params"],
        seed=first.seed,
        k=DEPTH,
    )
    folder = root / TABLES / name
    with atomic(folder) as temporary:
        (temporary / "figures").mkdir(parents=True)
        for title, svg in drawn.items():
            (temporary / "figures" / f"{title}.svg").write_bytes(svg)
        for form, render in formats.FORMS.items():
            text = "\n".join(render(table) for table in made)
            write_bytes(temporary / f"comparison.{form}", text.encode())
        write_json(temporary / "comparison.json", [asdict(table) for table in made])
        curves(root, standard).write_csv(temporary / "curves.csv")
    html = page.filled(
        resources.files("irgen.study").joinpath("comparison.html").read_text("utf-8"),
        content=content,
        definitions=page.DEFINITIONS,
        names=EVERY,
        seeds=formats.seeds_in_words,
    )
    write_bytes(page_of(root, name), html.encode())
    return folder


def page_of(root: Path, name: str) -> Path:
    """The page of a set's comparison."""
    return root / "reports" / f"comparison-{name}.html"


def verdicts(made: list[Table]) -> list[str]:
    """What the methods' table says of generating beside scanning, a sentence each."""
    table = made[0]
    rows = {row.title: row for row in table.rows}
    said = []
    for method in (RERANKED, OWN):
        row = rows.get(EVERY[method])
        if row is None or EVERY[SCAN] not in rows:
            continue
        measure = rows[EVERY[SCAN]]
        told = []
        for i in (j for j, title in enumerate(table.columns) if title.startswith(TOLD)):
            marks = {tables.BETTER: "better", tables.WORSE: "worse"}
            mark = marks.get(row.cells[i].mark, "no significant difference")
            both = f"{row.cells[i].text} beside {measure.cells[i].text}"
            told.append(f"{table.columns[i]} {both} ({mark})")
        if not told:
            continue
        name = EVERY[method]
        said.append(f"{name[0].upper()}{name[1:]}, and {EVERY[SCAN]}: {'; '.join(told)}.")
    return said


def facts(found: Found, plan: Plan) -> dict[str, str]:
    """What was run, in a few words each."""
    standard = found[plan.standard]
    about, images = standard[0].about, standard[0].about["images"]
    points = [result for each in found.values() for result in each]
    spent = sum(sum(result.seconds.values()) for result in standard)
    return {
        "Protocol": in_words(about["protocol"]),
        "Images": f"{images['database']:,} in the database, {images['queries']:,} queries, "
        f"trained on {images['train']:,}",
        "Compared": f"{len(found)} variants, {len(points)} trainings and evaluations",
        "Seeds": formats.seeds_in_words(tuple(each.point.seed for each in standard)),
        "Minutes": f"{spent / 60:.0f} for the standard variant, all seeds together",
        "Times measured on": tables.machines(points),
    }


def draw(root: Path, found: Found, plan: Plan, name: str) -> dict[str, bytes]:
    """The figures by name, in the order they are shown."""
    standard = found[plan.standard]
    lines = curves(root, standard)
    kinds = [variant for variant in found if plan.variants[variant].table == "identifiers"]
    codes = pl.read_parquet(results_of(root, standard[0].point) / "codes.parquet")
    return {
        "precision_over_k": _drawn(
            lines, "precision", Plot(title="precision over k", x="k, images returned", share=True)
        ),
        "precision_recall": _drawn(
            lines, "recall", Plot(title="precision over recall", x="recall", share=True, floor=0)
        ),
        "latency": _cost(
            standard,
            "latency",
            "search_ms",
            Plot(
                title="precision@10 over latency",
                x="milliseconds a query, search alone",
                share=True,
            ),
        ),
        "bytes": _cost(
            standard,
            "metrics",
            "bytes_per_image",
            Plot(title="precision@10 over memory", x="bytes an image", share=True),
        ),
        "entries_used": figures.entries_used(
            [plan.variants[kind].title for kind in kinds],
            [_entries(found[kind][0].about["identifiers"]) for kind in kinds],
        ),
        "buckets": figures.bucket_sizes(
            codes.select(pl.selectors.starts_with("level_")).to_numpy()
        ),
    }


def curves(root: Path, standard: list[results.Result]) -> pl.DataFrame:
    """Curves of every method, means over the seeds: method, curve (precision or recall), x, y."""
    parts = [pl.read_parquet(results_of(root, each.point) / "curves.parquet") for each in standard]
    return (
        pl.concat(parts)
        .group_by("method", "curve", "x", maintain_order=True)
        .agg(pl.col("y").mean())
    )


def _drawn(found: pl.DataFrame, curve: str, plot: Plot) -> bytes:
    own = found.filter(pl.col("curve") == curve)
    series = []
    for method in CURVES:
        part = own.filter(pl.col("method") == method).sort("x")
        if len(part):
            series.append(Line(name=EVERY[method], x=part["x"].to_list(), y=part["y"].to_list()))
    return figures.lines(plot, series)


def _cost(standard: list[results.Result], of: str, key: str, plot: Plot) -> bytes:
    """Every method's precision@10 over what it costs."""
    points = []
    for method in EVERY:
        quality = results.over_seeds(standard, method, "precision/10")
        costs = [getattr(each, of).get(method, {}).get(key) for each in standard]
        known = [cost for cost in costs if cost is not None]
        if quality is not None and known:
            name = method.replace("_", " ")  # what it is called in full, the tables say
            points.append(Line(name=name, x=[float(np.median(known))], y=[quality.mean]))
    return figures.scatter(plot, points)


def _entries(found: dict[str, float]) -> list[float]:
    names = [name for name in found if name.startswith("entries_used/")]
    return [found[name] for name in sorted(names, key=lambda name: int(name.rsplit("_", 1)[1]))]


def branches(root: Path, point: Trial) -> list[Branch]:
    """The code tree's first level in pictures."""
    folder = results_of(root, point)
    table = read_table(folder / "database.table.parquet")
    codes = pl.read_parquet(folder / "codes.parquet")
    return code_pictures.branches(codes, table, _thumbnails(root, point), point.seed)


def examples(root: Path, point: Trial) -> list[gallery.Example]:
    """Queries chosen by how well generative search answers them, with what each method found."""
    folder = results_of(root, point)
    queries, database = (
        read_table(folder / f"{name}.table.parquet") for name in ("queries", "database")
    )
    shown = {
        method: pl.read_parquet(folder / "runs" / f"{method}.parquet").filter(
            pl.col("rank") <= DEPTH
        )
        for method in SHOWN
    }
    return gallery.examples(
        queries, database, shown, (DEPTH, EXAMPLES, point.seed), _thumbnails(root, point)
    )


def _thumbnails(root: Path, point: Trial) -> gallery.Thumbnail:
    images = Images(images_of(root, point))
    return lambda sha256: gallery.thumbnail(decode(images.read(sha256), 3))
