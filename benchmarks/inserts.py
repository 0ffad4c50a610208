"""Measure how well images are found that joined the database after training, over several seeds.

    python benchmarks/inserts.py experiments/clothing-224.yaml --seeds 0 1 2

Of each seed, a tenth of the labels ("unseen") and a tenth of the other labels' database images
("inserted") are held out of the source, and all stages up to the retriever run. Then the source is
whole again: the new images join the database, nothing is trained, and the index is made.
A seed that was trained with these very parameters before is not trained again.
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

K = 10  # results judged
SHARE = 0.1  # of the labels, and of the other labels' database images
PREPARED_BY = ("download", "catalog", "features", "pairs", "tokenizer", "identifiers", "trie")
ADDED_BY = ("download", "catalog", "features", "identifiers", "trie")
DECIDING = ("download", "catalog", "encoder", "augment", "pairs", "tokenizer", "retriever")
GROUPS = ("trained", "inserted", "unseen")
METHODS = {  # beams towards images the retriever was not trained on; None: the index's own setting
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
    """Return the source's images (id, path, label, role, sha256) as the catalogue has them, and
    write the bytes of each to the file ``path`` below ``folder``."""
    whole = Workspace(data=folder / "whole", cache=folder / "cache", reports=folder / "reports")
    run_stages(("download", "catalog"), params, whole)
    names = ("train", "validation", "queries")
    tables = [read_table(whole.existing("catalog", f"{name}.parquet")) for name in names]
    columns = ("id", "path", "label", "role", "sha256")
    images = pl.concat([table.select(columns) for table in tables]).sort("id")
    images = images.with_columns(path="images/" + pl.col("path"))
    stored = Images(whole.stage("download"))
    for path, sha256 in images.select("path", "sha256").iter_rows():
        if not (folder / path).exists():
            write_bytes(folder / path, stored.read(sha256))
    return images


def draw_groups(images: pl.DataFrame, searched: tuple[str, ...], seed: int) -> pl.Series:
    """Each image's group: ``unseen`` if its label is, ``inserted`` or ``trained``.

    Other seeds have other unseen labels as long as there are any. Of each other label ``SHARE`` of
    the database images are inserted, rounded up or down at random; an image whose content is in the
    source twice is not, for its copy may be trained on.
    """
    labels = images["label"].unique().sort().to_list()
    count = max(1, round(SHARE * len(labels)))
    turns = np.random.default_rng(0).permutation(len(labels))
    unseen = [labels[turns[(seed * count + i) % len(labels)]] for i in range(count)]
    generator = np.random.default_rng(seed)
    label, group = images["label"].to_numpy(), np.full(len(images), "trained", dtype=object)
    in_database = images["role"].is_in(searched).to_numpy()
    alone = ~images["sha256"].is_duplicated().to_numpy()
    for name in labels:
        wanted = int(SHARE * (in_database & (label == name)).sum() + generator.random())
        drawn = generator.permutation(np.flatnonzero(in_database & (label == name) & alone))
        group[drawn[:wanted]] = "inserted"
    group[np.isin(label, unseen)] = "unseen"
    return pl.Series("group", group, pl.String)


def train_seed(params: Params, folder: Path) -> tuple[Params, Workspace, dict[str, float]]:
    """Trains without the held-out images, then adds them; gives seconds of both. Queries are there
    from the beginning, validation images of unseen labels only in the end."""
    seed = folder / f"seed-{params.seed}"
    workspace = Workspace(data=seed / "data", cache=folder / "cache", reports=seed / "reports")
    source, done = folder / f"images-{params.seed}.csv", seed / "trained.json"
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
    if done.exists() and read_json(done)["params"] == settings:
        return listed, workspace, read_json(done)["seconds"]
    images = list_images(params, folder)
    images = images.with_columns(draw_groups(images, listed.catalog.database, params.seed))
    images = images.drop("sha256")
    selected = (pl.col("group") == "trained") | (pl.col("role") == "query")
    images.filter(selected).write_csv(source)
    seconds = {"train": run_stages((*PREPARED_BY, "retriever"), listed, workspace)}
    images.write_csv(source)
    seconds["add"] = run_stages(ADDED_BY, listed, workspace)
    write_json(done, {"params": settings, "seconds": seconds})
    return listed, workspace, seconds


@dataclass(frozen=True)
class Case:
    """A trained seed: Q queries and what the models read of them, the table of the N database
    images, their ``embeddings`` (N, D) for the brute-force search, and the index."""

    queries: pl.DataFrame
    read: QueryFeatures
    database: pl.DataFrame
    embeddings: Tensor
    index: Index

    def answer(self, method: str, groups: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
        """The rows (Q, K) of ``database`` found among the images of ``groups``, −1 where there are
        fewer; and which of them (Q, K) bool the retriever did not write."""
        if method == "brute-force search":
            taken = torch.from_numpy(self.members(groups)).nonzero()[:, 0]
            rows = brute_force_search(self.read.embedding, self.embeddings[taken], K).ids
            return torch.where(rows >= 0, taken[rows], -1).numpy(), np.zeros(rows.shape, dtype=bool)
        allow = None if groups == GROUPS else pl.col("group").is_in(groups)
        options, fresh_beams = replace(self.index.options(K), allow=allow), METHODS[method]
        if fresh_beams is not None:
            options = replace(options, fresh_beams=fresh_beams)
        found = self.index.search(self.read, K, options)
        places = {name: row for row, name in enumerate(self.database["id"])} | {None: -1}
        return np.vectorize(places.get, otypes=[np.int64])(found.ids), found.by_embedding

    def members(self, groups: tuple[str, ...]) -> np.ndarray:
        """(N,) bool: the images of ``groups``."""
        return self.database["group"].is_in(groups).to_numpy()

    def precision(self, method: str, groups: tuple[str, ...], asked: np.ndarray) -> dict:
        """Means over the queries ``asked`` (Q,) bool that have a positive among ``groups``."""
        queries, database = self.queries.filter(asked), self.database.filter(self.members(groups))
        rows = self.answer(method, groups)[0][asked]
        hits = mark_relevant(rows, queries["label"], self.database["label"])
        hashes = queries["sha256"], database["sha256"]
        wanted = count_positives(queries["label"], hashes[0], database["label"], hashes[1])
        return metrics.summarise(hits, wanted, [K])


def open_case(params: Params, workspace: Workspace) -> Case:
    """Makes the index and opens it, and reads the queries, but for those whose very content is in
    the database."""
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
    read = QueryFeatures(
        *(torch.cat([getattr(part, f.name) for part in parts]) for f in fields(QueryFeatures))
    )
    embeddings = load_codes(workspace.existing("identifiers", "database")).embeddings
    return Case(queries, read, database, embeddings, index)


def measure(case: Case) -> dict[str, dict[str, float]]:
    """Every measure (see ``ROWS``) of every method, by method and then by measure."""
    unseen, group = (
        (case.queries["group"] == "unseen").to_numpy(),
        case.database["group"].to_numpy(),
    )
    found: dict[str, dict[str, float]] = {}
    for method in ("brute-force search", *METHODS):
        one: dict[str, float] = {}
        for title, asked, own, database in (
            ("seen", ~unseen, "inserted", ("trained", "inserted")),
            ("unseen", unseen, "unseen", GROUPS),
        ):
            top, by_embedding = (part[asked] for part in case.answer(method, database))
            exact = case.answer("brute-force search", database)[0][asked]
            again = (exact[:, :, None] == top[:, None, :]).any(2)  # (Q', K) of the exact top K
            among = case.precision(method, (own,), asked)
            one |= {
                f"{title}/own": among[f"precision/{K}"],
                f"{title}/capped": among[f"precision_capped/{K}"],
                f"{title}/precision": case.precision(method, database, asked)[f"precision/{K}"],
                f"{title}/share": float((group[top] == own)[top >= 0].mean()),
                f"{title}/found": float(again[group[exact] == own].mean()),
                f"{title}/trained": float(again[group[exact] == "trained"].mean()),
                f"{title}/dense": float(by_embedding[top >= 0].mean()),
            }
        for name, groups, asked in (
            ("unseen/added", ("inserted", "unseen"), unseen),
            ("seen/whole", GROUPS, ~unseen),
            ("all/whole", GROUPS, unseen | True),
        ):
            one[name] = case.precision(method, groups, asked)[f"precision/{K}"]
        found[method] = one
    return found


def spread(seeds: list[dict], method: str, name: str) -> str:
    """Mean ± standard deviation over the seeds."""
    values = [seed["measured"][method][name] for seed in seeds]
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.3f} ± {deviation:.3f}"


def page(name: str, seeds: list[dict], commit: str) -> str:
    """Markdown: a row a measure, a column a method; then what was run, where, what it cost."""
    methods = ("brute-force search", *METHODS)
    lines = [["", *methods], ["---", *["---:"] * len(methods)]]
    lines += [[title, *(spread(seeds, m, row) for m in methods)] for row, title in ROWS.items()]
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    images = "; ".join(
        ", ".join(f"{seed['images'][group]:,} {group}" for group in GROUPS) for seed in seeds
    )
    train, add = ([seed["seconds"][what] for seed in seeds] for what in ("train", "add"))
    return (
        f"## {name}\n\n{body}\n\n{len(seeds)} seeds; both groups were held out of the same "
        f"training. Database, seed by seed: {images}. {len(os.sched_getaffinity(0))} cores "
        f"({name_processor(torch.device('cpu'))}), commit {commit}; training took "
        f"{min(train):,.0f} to {max(train):,.0f} s, adding {min(add):,.0f} to {max(add):,.0f} s.\n"
    )


def main() -> int:
    """Trains and measures the seeds one after the other."""
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
    every = read_json(path) if path.exists() else {}
    every[name] = {"commit": commit, "seeds": seeds}
    write_json(path, every)
    pages = [page(name, one["seeds"], one["commit"]) for name, one in sorted(every.items())]
    write_bytes(results / "inserts.md", "\n".join(pages).encode())
    print(page(name, seeds, commit))
    return 0


if __name__ == "__main__":
    sys.exit(main())
