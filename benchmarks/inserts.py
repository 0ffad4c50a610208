"""Measure the search of images that join the database after training, over several seeds.

    python benchmarks/inserts.py experiments/clothing-224.yaml --seeds 0 1 2

For each seed, a tenth of the labels ("unseen") and a tenth of the database images of the other
labels ("inserted") are held out of the source, and all stages up to the retriever run. Then the
held-out images are put back: they join the database, nothing is trained, and the index is built.
A seed that was trained with the same parameters before is not trained again.
"""

import argparse
import os
import statistics
import sys
import time
from dataclasses import dataclass, fields, replace
from importlib import import_module
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor

from irgen.catalog import columns
from irgen.catalog.shards import Images
from irgen.catalog.table import SCHEMA, read_table
from irgen.checkpoints.identifiers import load_codes
from irgen.encoding.encode import decode_pixels, open_encoding
from irgen.evaluation import metrics
from irgen.evaluation.latency import name_processor
from irgen.evaluation.query_set import count_positives, mark_relevant
from irgen.files.atomic import write_bytes
from irgen.files.digests import digest
from irgen.files.records import read_json, write_json
from irgen.files.workspace import Workspace, git
from irgen.index.index import Index
from irgen.params import Params, load
from irgen.params.strict import flatten
from irgen.search.brute_force import brute_force_search
from irgen.search.engine import QueryFeatures

K = 10  # results of a query
SHARE = 0.1  # of the labels, and of the other labels' database images
PREPARED_BY = ("download", "catalog", "features", "pairs", "tokenizer", "identifiers", "trie")
PREPARED_BY += ("texts",)
ADDED_BY = ("download", "catalog", "features", "identifiers", "trie")
DECIDING = ("download", "catalog", "encoder", "augment", "pairs", "tokenizer", "retriever")
GROUPS = ("trained", "inserted", "unseen")
METHODS = {  # fresh_beams: for images the retriever was not trained on; None: the index's setting
    "index": None,
    "index, 10 fresh beams": 10,
    "index, retriever alone": 0,
}
ROWS = {
    "seen/own": f"seen labels, among the inserted: P@{K}",
    "seen/capped": f"– hits / min({K}, R)",
    "seen/precision": f"seen labels, database without the unseen: P@{K}",
    "seen/share": f"– inserted images in the top {K}",
    "seen/found": f"– of the inserted images in the exact top {K}, found",
    "seen/trained": f"– of the trained images in the exact top {K}, found",
    "seen/dense": f"– images in the top {K} that the retriever did not predict",
    "unseen/own": f"unseen labels, among the unseen: P@{K}",
    "unseen/added": f"unseen labels, among all that was added: P@{K}",
    "unseen/precision": f"unseen labels, whole database: P@{K}",
    "unseen/share": f"– unseen images in the top {K}",
    "unseen/found": f"– of the unseen images in the exact top {K}, found",
    "unseen/dense": f"– images in the top {K} that the retriever did not predict",
    "seen/whole": f"seen labels, whole database: P@{K}",
    "all/whole": f"all queries, whole database: P@{K}",
}


def run_stages(names: tuple[str, ...], params: Params, workspace: Workspace) -> float:
    """Run the stages; return the seconds that they took."""
    started = time.perf_counter()
    for name in names:
        import_module(f"irgen.stages.{name}").run(params, workspace, lambda metrics, step: None)
    return time.perf_counter() - started


def list_images(params: Params, folder: Path) -> pl.DataFrame:
    """Return the images of the catalogue (id, path, label, role, sha256), and write the bytes of
    each to the file ``path`` below ``folder``."""
    workspace = Workspace(data=folder / "whole", cache=folder / "cache", reports=folder / "reports")
    run_stages(("download", "catalog"), params, workspace)
    names = ("train", "validation", "queries")
    tables = [read_table(workspace.existing("catalog", f"{name}.parquet")) for name in names]
    columns = ("id", "path", "label", "role", "sha256")
    images = pl.concat([table.select(columns) for table in tables]).sort("id")
    images = images.with_columns(path="images/" + pl.col("path"))
    stored = Images(workspace.stage("download"))
    for path, sha256 in images.select("path", "sha256").iter_rows():
        if not (folder / path).exists():
            write_bytes(folder / path, stored.read(sha256))
    return images


def draw_groups(images: pl.DataFrame, database_roles: tuple[str, ...], seed: int) -> pl.Series:
    """Return the group of each image: ``unseen`` if its label is unseen, ``inserted`` or
    ``trained``.

    Successive seeds have different unseen labels, until each label had its turn. ``SHARE`` of the
    database images of each other label are inserted, rounded up or down at random. An image whose
    content is in the source twice is not inserted, because its copy may be trained on.
    """
    labels = images["label"].unique().sort().to_list()
    unseen_count = max(1, round(SHARE * len(labels)))
    order = np.random.default_rng(0).permutation(len(labels))
    positions = [(seed * unseen_count + i) % len(labels) for i in range(unseen_count)]
    unseen = [labels[order[position]] for position in positions]
    generator = np.random.default_rng(seed)
    label, group = images["label"].to_numpy(), np.full(len(images), "trained", dtype=object)
    in_database = images["role"].is_in(database_roles).to_numpy()
    without_copy = ~images["sha256"].is_duplicated().to_numpy()
    for name in labels:
        count = int(SHARE * (in_database & (label == name)).sum() + generator.random())
        rows = np.flatnonzero(in_database & (label == name) & without_copy)
        group[generator.permutation(rows)[:count]] = "inserted"
    group[np.isin(label, unseen)] = "unseen"
    return pl.Series("group", group, pl.String)


def train_seed(params: Params, folder: Path) -> tuple[Params, Workspace, dict[str, float]]:
    """Train without the held-out images, then add them. Return the parameters with the list of
    images as the source, the workspace, and the seconds of both steps. Queries are in the source
    from the start, validation images of unseen labels only in the second step."""
    seed_folder = folder / f"seed-{params.seed}"
    workspace = Workspace(
        data=seed_folder / "data", cache=folder / "cache", reports=seed_folder / "reports"
    )
    source, record = folder / f"images-{params.seed}.csv", seed_folder / "trained.json"
    listed = replace(
        params,
        download=replace(params.download, source=str(source)),
        catalog=replace(
            params.catalog,
            format="list",
            protocol="given",
            training_revision=1,
            database=tuple(role for role in params.catalog.database if role != "query"),
        ),
    )
    settings = digest(params.seed, [flatten(getattr(params, name)) for name in DECIDING], SHARE)
    if record.exists() and read_json(record)["params"] == settings:
        return listed, workspace, read_json(record)["seconds"]
    images = list_images(params, folder)
    images = images.with_columns(draw_groups(images, listed.catalog.database, params.seed))
    images = images.drop("sha256")
    selected = (pl.col("group") == "trained") | (pl.col("role") == "query")
    images.filter(selected).write_csv(source)
    seconds = {"train": run_stages((*PREPARED_BY, "retriever"), listed, workspace)}
    images.write_csv(source)
    seconds["add"] = run_stages(ADDED_BY, listed, workspace)
    write_json(record, {"params": settings, "seconds": seconds})
    return listed, workspace, seconds


@dataclass(frozen=True)
class Case:
    """Hold a trained seed: Q queries and their features, the table of the N database images, their
    ``embeddings`` (N, D) for brute-force search, and the index."""

    queries: pl.DataFrame
    features: QueryFeatures
    database: pl.DataFrame
    embeddings: Tensor
    index: Index

    def search(self, method: str, groups: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Search the images of ``groups``. Return rows (Q, K) of ``database``, −1 where there are
        fewer, and whether each was reached by its embedding rather than predicted (Q, K) bool."""
        if method == "brute-force search":
            members = torch.from_numpy(self.mark_members(groups)).nonzero()[:, 0]
            rows = brute_force_search(self.features.embedding, self.embeddings[members], K).ids
            by_embedding = np.zeros(rows.shape, dtype=bool)
            return torch.where(rows >= 0, members[rows], -1).numpy(), by_embedding
        allow = None if groups == GROUPS else pl.col("group").is_in(groups)
        options, fresh_beams = replace(self.index.options(K), allow=allow), METHODS[method]
        if fresh_beams is not None:
            options = replace(options, fresh_beams=fresh_beams)
        hits = self.index.search(self.features, K, options)
        row_by_id = {name: row for row, name in enumerate(self.database["id"])} | {None: -1}
        return np.vectorize(row_by_id.get, otypes=[np.int64])(hits.ids), hits.by_embedding

    def mark_members(self, groups: tuple[str, ...]) -> np.ndarray:
        """Mark the database images of ``groups``, (N,) bool."""
        return self.database["group"].is_in(groups).to_numpy()

    def precision(self, method: str, groups: tuple[str, ...], selected: np.ndarray) -> dict:
        """Return means over the ``selected`` queries (Q,) bool with a positive in ``groups``."""
        queries = self.queries.filter(selected)
        database = self.database.filter(self.mark_members(groups))
        rows = self.search(method, groups)[0][selected]
        hits = mark_relevant(rows, queries["label"], self.database["label"])
        hashes = queries["sha256"], database["sha256"]
        positives = count_positives(queries["label"], hashes[0], database["label"], hashes[1])
        return metrics.summarise(hits, positives, [K])


def open_case(params: Params, workspace: Workspace) -> Case:
    """Build and open the index, and encode the queries, without those whose content is in the
    database."""
    run_stages(("index",), params, workspace)
    index = Index.open(workspace.stage("index"))
    queries, database = (
        columns.flatten(read_table(workspace.existing("catalog", f"{name}.parquet")), SCHEMA)
        for name in ("queries", "database")
    )
    queries = queries.filter(~pl.col("sha256").is_in(database["sha256"].implode()))
    encoding = open_encoding(params.compute, workspace)
    images = decode_pixels(
        index.models.query_encoder.encoder, queries["sha256"].to_list(), encoding
    )
    parts = [index.models.encode(batch) for batch in torch.from_numpy(images).split(32)]
    features = QueryFeatures(
        *(torch.cat([getattr(part, f.name) for part in parts]) for f in fields(QueryFeatures))
    )
    embeddings = load_codes(workspace.existing("identifiers", "database")).embeddings
    return Case(queries, features, database, embeddings, index)


def measure(case: Case) -> dict[str, dict[str, float]]:
    """Return each measure of ROWS by method and by name."""
    unseen, group = (
        (case.queries["group"] == "unseen").to_numpy(),
        case.database["group"].to_numpy(),
    )
    measures: dict[str, dict[str, float]] = {}
    for method in ("brute-force search", *METHODS):
        values: dict[str, float] = {}
        for title, queries, new_group, searched in (
            ("seen", ~unseen, "inserted", ("trained", "inserted")),
            ("unseen", unseen, "unseen", GROUPS),
        ):
            top, by_embedding = (part[queries] for part in case.search(method, searched))
            exact = case.search("brute-force search", searched)[0][queries]
            recalled = (exact[:, :, None] == top[:, None, :]).any(2)  # (Q', K) of the exact top K
            among_new = case.precision(method, (new_group,), queries)
            values |= {
                f"{title}/own": among_new[f"precision/{K}"],
                f"{title}/capped": among_new[f"precision_capped/{K}"],
                f"{title}/precision": case.precision(method, searched, queries)[f"precision/{K}"],
                f"{title}/share": float((group[top] == new_group)[top >= 0].mean()),
                f"{title}/found": float(recalled[group[exact] == new_group].mean()),
                f"{title}/trained": float(recalled[group[exact] == "trained"].mean()),
                f"{title}/dense": float(by_embedding[top >= 0].mean()),
            }
        for name, groups, queries in (
            ("unseen/added", ("inserted", "unseen"), unseen),
            ("seen/whole", GROUPS, ~unseen),
            ("all/whole", GROUPS, unseen | True),
        ):
            values[name] = case.precision(method, groups, queries)[f"precision/{K}"]
        measures[method] = values
    return measures


def format_spread(seeds: list[dict], method: str, name: str) -> str:
    """Format mean ± standard deviation over the seeds."""
    values = [seed["measured"][method][name] for seed in seeds]
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.3f} ± {deviation:.3f}"


def render(name: str, seeds: list[dict], commit: str) -> str:
    """Return a Markdown section: a row for each measure, a column for each method; then the number
    of images, the machine and the seconds."""
    methods = ("brute-force search", *METHODS)
    lines = [["", *methods], ["---", *["---:"] * len(methods)]]
    lines += [
        [title, *(format_spread(seeds, method, row) for method in methods)]
        for row, title in ROWS.items()
    ]
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    images = "; ".join(
        ", ".join(f"{seed['images'][group]:,} {group}" for group in GROUPS) for seed in seeds
    )
    train, add = ([seed["seconds"][step] for seed in seeds] for step in ("train", "add"))
    return (
        f"## {name}\n\n{body}\n\n{len(seeds)} seeds; both groups were held out of the same "
        f"training. Database, seed by seed: {images}. {len(os.sched_getaffinity(0))} cores "
        f"({name_processor(torch.device('cpu'))}), commit {commit}; training took "
        f"{min(train):,.0f} to {max(train):,.0f} s, adding {min(add):,.0f} to {max(add):,.0f} s.\n"
    )


def main() -> int:
    """Train and measure the seeds one after the other."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("params", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--folder", type=Path, default=Path(".cache/inserts"))
    options = parser.parse_args()
    name, seeds = options.params.stem, []
    for seed in options.seeds:
        params = replace(load(options.params), seed=seed)
        listed, workspace, seconds = train_seed(params, options.folder / name)
        case = open_case(listed, workspace)
        images = dict(case.database["group"].value_counts().iter_rows())
        measured = measure(case)
        seeds.append({"seed": seed, "images": images, "seconds": seconds, "measured": measured})
    commit = git(Path(__file__).parent, "rev-parse", "--short", "HEAD") or "unknown"
    results = Path(__file__).parent / "results"
    path = results / "inserts.json"
    runs = read_json(path) if path.exists() else {}
    runs[name] = {"commit": commit, "seeds": seeds}
    write_json(path, runs)
    sections = [render(title, run["seeds"], run["commit"]) for title, run in sorted(runs.items())]
    write_bytes(results / "inserts.md", "\n".join(sections).encode())
    print(render(name, seeds, commit))
    return 0


if __name__ == "__main__":
    sys.exit(main())
