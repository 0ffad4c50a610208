"""Speed and size of the index: build, search, changes, and others on the same vectors.

    python benchmarks/index.py --sizes 10000 100000 1000000
    python benchmarks/index.py --real data --params params.yaml
    python benchmarks/index.py --live --sizes 1000000

Writes ``benchmarks/results/index.json``, ``.md``, ``.svg`` and ``.png``, and prints the tables. The
synthetic database, HNSW and IVF-PQ are made once and kept below ``--cache`` with the seconds that
took. Run it on a machine that does nothing else. ``--real`` adds a finished run's own features: its
``data`` folder, and the parameters it was run with; may be given several times. ``--live`` measures
the index on the disk alone, prints the figures and writes no file.
"""

import argparse
import gc
import json
import os
import platform
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import faiss
import torch
from speed import figure, live, neighbours, ours, races, real, report, synthetic
from speed.neighbours import Neighbours
from speed.ours import PRECISIONS, Pool, Search
from speed.races import Field, Published, resting
from speed.stopwatch import Patience, Times, once, repeat
from speed.synthetic import Database, Recipe

from irgen import params
from irgen.compute.machine import keep_freed_memory
from irgen.evaluation.latency import name_processor
from irgen.files.atomic import write_bytes
from irgen.files.records import write_json
from irgen.files.workspace import Workspace, git
from irgen.index.index import Index
from irgen.models.decoder import IdentifierDecoder
from irgen.search import trie
from irgen.search.decoder import Decoder
from irgen.search.snapshot import Snapshot

BATCHES, WIDTHS = (1, 64), (1, 10, 30)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Data to measure on, and the duration of each kind of measurement."""

    sizes: tuple[int, ...]
    recipe: Recipe
    queries: int
    alone: Patience  # one query at a time
    batched: Patience
    race: Patience
    builds: int
    agreeing: int  # queries whose codes are compared with the published search's
    concurrent: tuple[float, int]  # seconds between changes, rounds at the largest size
    openings: int
    changes: int  # adds, and removes
    layers: int = ours.LAYERS  # of the decoder
    single_adds: int = 2_000  # images added one at a time


FULL = Plan(
    sizes=(10_000, 100_000, 1_000_000),
    recipe=Recipe(),
    queries=1024,
    alone=Patience(4, 30, 300),
    batched=Patience(8, 5, 150),
    race=Patience(25, 7, 60),
    builds=5,
    agreeing=16,
    concurrent=(1.0, 3),
    openings=3,
    changes=10,
)
QUICK = Plan(
    sizes=(1_000, 2_000),
    recipe=Recipe(sample=1_000, iterations=2, clusters=100),
    queries=128,
    alone=Patience(0, 2, 2, warm=1),
    batched=Patience(0, 1, 1, warm=0),
    race=Patience(0, 1, 1, warm=1),
    builds=1,
    agreeing=2,
    concurrent=(0.05, 1),
    openings=1,
    changes=3,
    layers=1,
)


@dataclass(frozen=True)
class Stand:
    """What is measured at one size."""

    plan: Plan
    database: Database
    held: Snapshot
    field: Field
    model: IdentifierDecoder
    cache: Path

    def __len__(self) -> int:
        """N."""
        return len(self.database.codes)

    def patience(self, batch: int) -> Patience:
        """Return the repetitions of searches in batches of that size."""
        return self.plan.alone if batch == 1 else self.plan.batched


def build(stand: Stand) -> dict[str, Any]:
    """Measure the seconds to build the trie, and its bytes an image."""
    segment = stand.held.segments[0]
    times = Times(
        tuple(
            once(lambda: trie.build(segment.codes, segment.keys))[0]
            for _ in range(stand.plan.builds)
        )
    )
    columns = (segment.codes, segment.embeddings, segment.keys, segment.trained)
    size = segment.trie.nbytes
    return {
        "size": len(stand),
        "p50": times.milliseconds()["p50"] / 1000,
        "slowest": max(times.seconds),
        "trie_bytes": size / len(stand),
        "all_bytes": (size + sum(column.nbytes for column in columns)) / len(stand),
    }


def search(stand: Stand, precisions: tuple[str, ...]) -> list[dict[str, Any]]:
    """A row for every precision, batch and width: the whole and its parts, ms a query."""
    rows = []
    for name in precisions:
        for batch in BATCHES:
            for width in WIDTHS:
                asked = Search(
                    stand.field.decoders[name], stand.held, stand.field.pool, batch, width
                )
                whole, parts = ours.take_apart(asked, stand.patience(batch))
                medians = {part: t.milliseconds(batch)["p50"] for part, t in parts.items()}
                row = {"size": len(stand), "precision": name, "batch": batch, "beams": width}
                rows.append(row | whole.milliseconds(batch) | {"parts": medians})
    return rows


def overlap(stand: Stand) -> dict[str, dict[str, float]]:
    """By precision and width, the share of fp32's images that are found too."""
    found: dict[str, dict[str, float]] = {}
    for name in PRECISIONS:
        found[name] = {}
        for width in WIDTHS:
            one, other = (
                Search(stand.field.decoders[p], stand.held, stand.field.pool, 64, width)
                for p in ("fp32", name)
            )
            found[name][str(width)] = ours.overlap(one, other, range(2))
    return found


def others(stand: Stand) -> tuple[Neighbours, list[dict[str, Any]]]:
    """faiss's brute-force search, and rows of all its indexes."""
    vectors = stand.database.float32()
    kept = stand.cache / f"faiss-{stand.database.digest}-{len(stand)}"
    exact = neighbours.exact(vectors)
    rows = _rival(stand, exact, exact, 0)
    graph = neighbours.graph(vectors, kept / "hnsw")
    rows += _rival(stand, graph, exact, 64)
    del graph
    lists = neighbours.compressed(vectors, kept / "ivfpq")
    rows += _rival(stand, lists, exact, min(32, neighbours.list_count(len(stand))))
    return exact, rows


def _rival(stand: Stand, rival: Neighbours, exact: Neighbours, effort: int) -> list[dict[str, Any]]:
    pool, rows = stand.field.pool, []
    rival.set_effort(effort)
    queries = pool.embeddings[:256].numpy()
    recall = neighbours.recall(rival.search(queries, ours.K), exact.search(queries, ours.K))
    for batch in BATCHES:
        times = repeat(races.search_of(rival, pool, batch), stand.patience(batch))
        row = {
            "size": len(stand),
            "method": rival.name,
            "setting": f"{rival.effort} {effort}" if effort else "",
            "seconds": rival.seconds,
            "bytes_per_image": rival.bytes_per_image,
            "batch": batch,
            "recall": recall,
        }
        rows.append(row | times.milliseconds(batch))
    return rows


def published(stand: Stand) -> tuple[Published, list[dict[str, Any]]]:
    """Measure the published algorithm at two widths."""
    seconds, rival = once(lambda: Published.over(stand.model, stand.database))
    assert isinstance(rival, Published)
    pool, rows = stand.field.pool, []
    few = replace(stand.plan.alone, least=min(5, stand.plan.alone.least), most=30)
    for width in (10, races.PUBLISHED_BEAMS):
        same = ours.agreement(
            stand.model, stand.held, rival.trie, (pool, stand.plan.agreeing, width)
        )
        writing, looking_up = (
            repeat(call, few).milliseconds()["p50"]
            for call in (rival.writing(pool, width), rival.looking_up(pool, width))
        )
        row = {"size": len(stand), "beams": width, "build": seconds, "agreement": str(same)}
        rows.append(row | {"writing": writing, "looking_up": looking_up, "agrees": same.all})
    return rival, rows


def changes(stand: Stand) -> dict[str, Any]:
    """Measure the index on the disk."""
    folder, plan = stand.cache / f"index-{len(stand)}-{os.getpid()}", stand.plan
    loop, new = live.Loop(stand.field.pool, 64, 10), live.Newcomers.of(plan.recipe)
    every, rounds = plan.concurrent
    rounds = rounds if len(stand) == max(plan.sizes) else 1
    with live.bundle(stand.database, stand.model, folder) as create:
        opened = live.opening(folder, plan.openings)
        with Index.open(folder, writable=True) as index:
            found = {
                "size": len(stand),
                "create": create,
                "open": opened,
                "precision": index.decoder.precision,
                "batch": loop.batch,
                "beams": loop.beams,
                "change": live.CHANGE,
                "added": live.CHANGE * plan.changes,
                "every": every,
                "filter": live.filtering(index, loop, plan.batched),
                "after_adding": live.after_adding(index, loop, new, plan.batched, plan.changes),
                "concurrent": live.concurrent(index, loop, new, plan.batched, every, rounds),
            }
            found |= live.changing(index, new, len(stand), plan.changes)
            found["compact"] = once(index.compact)[0]
            found["single"] = live.adding_singly(index, new, plan.single_adds)
            found["reopen"] = live.opening(folder, 1)["warm"]
    return found


def run_live(plan: Plan, cache: Path) -> list[dict[str, Any]]:
    """Measure the index on the disk alone, at each size."""
    database = synthetic.database(plan.recipe, max(plan.sizes), cache)
    model = ours.retriever(database.codes, plan.recipe.codebook, plan.layers)
    found = []
    for size in sorted(plan.sizes):
        say(f"{size:,} images")
        part = database.first(size)
        held = ours.snapshot(part.vectors, part.codes, part.codebooks)
        pool = Pool.of(synthetic.queries(plan.recipe, part.vectors, plan.queries))
        stand = Stand(plan, part, held, Field({}, pool), model, cache)
        found.append(changes(stand))
    return found


def run(plan: Plan, cache: Path) -> dict[str, Any]:
    """Everything but the real features."""
    database = synthetic.database(plan.recipe, max(plan.sizes), cache)
    model = ours.retriever(database.codes, plan.recipe.codebook, plan.layers)
    decoders = {name: Decoder(model, name) for name in PRECISIONS}
    small: Snapshot | None = None
    results: dict[str, Any] = {
        name: [] for name in ("codes", "build", "search", "live", "others", "published")
    }
    for size in sorted(plan.sizes):
        say(f"{size:,} images")
        part = database.first(size)
        held = ours.snapshot(part.vectors, part.codes, part.codebooks)
        small = small or held
        pool = Pool.of(synthetic.queries(plan.recipe, part.vectors, plan.queries))
        stand = Stand(plan, part, held, Field(decoders, pool), model, cache)
        spread = synthetic.spread(part.codes, plan.recipe.codebook)
        about = {"levels": plan.recipe.levels, "codebook": plan.recipe.codebook, "images": size}
        results["codes"].append(spread | about)
        results["build"].append(build(stand))
        last = size == max(plan.sizes)
        say("search")
        results["search"] += search(stand, PRECISIONS if last else PRECISIONS[:1])
        say("others")
        exact, rows = others(stand)
        results["others"] += rows
        if last:
            say("in turns with brute-force searches and the small index")
            results["overlap"] = overlap(stand)
            results["races"] = {
                "exact": {
                    str(batch): races.against_scans(
                        stand.field, held, exact, batch, resting(plan.race)
                    )
                    for batch in BATCHES
                },
                "sizes": races.over_sizes(stand.field, small, held, 64, plan.race),
            }
        del exact
        gc.collect()
        say("the published algorithm")
        rival, rows = published(stand)
        results["published"] += rows
        if last:
            results["races"]["published"] = races.against_published(
                stand.field, held, rival, BATCHES, plan.race
            )
        del rival
        gc.collect()
        say("the index on the disk")
        results["live"].append(changes(stand))
    say("done")
    return results | {"sizes": sorted(plan.sizes), "encoding_seconds": database.seconds}


def about(started: float, plan: Plan) -> dict[str, Any]:
    """Return a description of the machine, of what ran on it, and of how long."""
    commit = git(Path(__file__).parent, "rev-parse", "--short", "HEAD") or "unknown"
    seconds = time.perf_counter() - started
    name = name_processor(torch.device("cpu"))
    cores, threads = len(os.sched_getaffinity(0)), torch.get_num_threads()
    text = (
        f"{name}, {cores} cores, {threads} threads (torch and faiss alike), "
        f"{torch.backends.cpu.get_cpu_capability()}; torch {torch.__version__}, faiss "
        f"{faiss.__version__}, Python {platform.python_version()}; commit {commit}; the whole run "
        f"took {seconds / 60:.1f} minutes (what was kept from earlier runs not counted). Decoder: "
        f"{plan.layers} layers, width {ours.WIDTH}, {ours.HEADS} heads, {ours.TOKENS} image tokens "
        f"of width {ours.TOKEN_WIDTH}, made-up weights; vectors of {plan.recipe.width} dimensions; "
        "precision fp32 unless named."
    )
    return {"text": text, "commit": commit, "processor": name, "threads": threads}


def say(what: str) -> None:
    """Tells on stderr how far it is."""
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)


def main() -> int:
    """Runs what was asked for, keeps what other runs found of the other part."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    parser.add_argument("--real", type=Path, action="append", default=[], metavar="DATA")
    parser.add_argument("--params", type=Path, action="append", default=[])
    parser.add_argument("--live", action="store_true", help="the index on the disk alone")
    parser.add_argument("--single-adds", type=int, default=20_000, metavar="N")
    parser.add_argument("--only-real", action="store_true", help="keep the synthetic results")
    parser.add_argument("--threads", type=int, help="of torch and faiss; by default torch's own")
    parser.add_argument("--cache", type=Path, default=Path(".cache/benchmarks"))
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    if len(options.real) != len(options.params):
        parser.error("one --params for each --real")
    started = time.perf_counter()
    keep_freed_memory()
    torch.set_num_threads(options.threads or torch.get_num_threads())
    neighbours.use_torchs_threads()
    plan = QUICK if options.quick else FULL
    plan = replace(plan, sizes=tuple(options.sizes or plan.sizes))
    if options.live:
        plan = replace(plan, single_adds=options.single_adds)
        print(json.dumps(run_live(plan, options.cache), indent=2))
        return 0
    file = options.results / "index.json"
    before = json.loads(file.read_text()) if file.exists() else {}
    if options.only_real:
        results = before
    else:
        results = run(plan, options.cache)
        results["about"] = about(started, plan)
        results["real"] = before.get("real", {})
    for data, settings in zip(options.real, options.params, strict=True):
        say(f"real features of {data}")
        workspace = Workspace(data=data, cache=options.cache, reports=data.parent / "reports")
        found = real.compare(params.load(settings), workspace, plan.alone)
        results["real"] = results.get("real", {}) | {settings.stem: found}
    write_json(file, results)
    shown = report.text(results)
    write_bytes(options.results / "index.md", shown.encode())
    figure.save(results, options.results)
    print(shown)
    return 0


if __name__ == "__main__":
    sys.exit(main())
