"""Measure speed and size of the index: build, search, changes, and faiss on the same vectors.

    python benchmarks/index.py --sizes 10000 100000 1000000
    python benchmarks/index.py --real data --params params.yaml
    python benchmarks/index.py --live --sizes 1000000
    python benchmarks/index.py --race --sizes 1000000

Writes ``benchmarks/results/index.json``, ``.md``, ``.svg`` and ``.png``, and prints the tables. The
synthetic database, HNSW and IVF-PQ are made once and stored below ``--cache`` with the seconds they
took. Run it on a machine that does nothing else. ``--real`` and ``--params`` add the features of a
finished run: its ``data`` folder, and its parameters. They can be repeated. ``--live`` measures
only the index on disk, ``--race`` only searches beside those of faiss, which take turns: both print
the figures and write no file. ``--layers``: by default those that ``irgen init`` chooses.
"""

import argparse
import gc
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from speed import faiss_indexes, figure, generative, live, races, real, report, synthetic
from speed.faiss_indexes import FaissIndex, Rivals
from speed.generative import PRECISIONS, QueryPool, Search
from speed.machine import describe_run
from speed.races import DecoderSet, Published, Race
from speed.stopwatch import Repeats, Times, time_once, time_repeats
from speed.synthetic import Database, Recipe

from irgen import params
from irgen.compute.machine import keep_freed_memory
from irgen.files.atomic import write_bytes
from irgen.files.records import write_json
from irgen.files.workspace import Workspace
from irgen.index.index import Index
from irgen.models.decoder import IdentifierDecoder
from irgen.search import trie
from irgen.search.decoder import Decoder
from irgen.search.snapshot import Snapshot

BATCHES, WIDTHS = (1, 64), (1, 10, 30)
HNSW_EFFORT = 64  # efSearch


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Set the sizes, the data, and the repeats of each kind of measurement."""

    sizes: tuple[int, ...]
    recipe: Recipe
    queries: int
    alone: Repeats  # one query at a time
    batched: Repeats
    race: Repeats
    builds: int
    compared_queries: int  # queries whose codes are compared with the published search's
    concurrent: tuple[float, int]  # seconds between changes, rounds at the largest size
    openings: int
    changes: int  # additions, and as many removals
    layers: int = generative.LAYERS  # of the decoder
    single_adds: int = 2_000  # images added one at a time


FULL = Plan(
    sizes=(10_000, 100_000, 1_000_000),
    recipe=Recipe(),
    queries=1024,
    alone=Repeats(4, 30, 300),
    batched=Repeats(8, 5, 150),
    race=Repeats(25, 7, 60),
    builds=5,
    compared_queries=16,
    concurrent=(1.0, 3),
    openings=3,
    changes=10,
)
QUICK = Plan(
    sizes=(1_000, 2_000),
    recipe=Recipe(sample=1_000, iterations=2, clusters=100),
    queries=128,
    alone=Repeats(0, 2, 2, warmups=1),
    batched=Repeats(0, 1, 1, warmups=0),
    race=Repeats(0, 1, 1, warmups=1),
    builds=1,
    compared_queries=2,
    concurrent=(0.05, 1),
    openings=1,
    changes=3,
)


@dataclass(frozen=True)
class Setup:
    """Hold plan, data and models of the measurements at one size."""

    plan: Plan
    database: Database
    snapshot: Snapshot
    decoder_set: DecoderSet
    model: IdentifierDecoder
    cache: Path

    def __len__(self) -> int:
        """Return the number of images N."""
        return len(self.database.codes)

    @property
    def faiss_folder(self) -> Path:
        """Return the folder of the faiss indexes that are slow to build."""
        return self.cache / f"faiss-{self.database.digest}-{len(self)}"

    def repeats(self, batch: int) -> Repeats:
        """Return the repeats of searches in batches of this size."""
        return self.plan.alone if batch == 1 else self.plan.batched


def measure_build(setup: Setup) -> dict[str, Any]:
    """Measure the seconds to build the trie, and its bytes an image."""
    segment = setup.snapshot.segments[0]
    times = Times(
        tuple(
            time_once(lambda: trie.build(segment.codes, segment.keys))[0]
            for _ in range(setup.plan.builds)
        )
    )
    columns = (segment.codes, segment.embeddings, segment.keys, segment.trained)
    size = segment.trie.nbytes
    return {
        "size": len(setup),
        "p50": times.milliseconds()["p50"] / 1000,
        "slowest": max(times.seconds),
        "trie_bytes": size / len(setup),
        "all_bytes": (size + sum(column.nbytes for column in columns)) / len(setup),
    }


def measure_search(setup: Setup, precisions: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return a row for each precision, batch size and beam width: ms a query, whole and by part."""
    rows = []
    for name in precisions:
        for batch in BATCHES:
            for width in WIDTHS:
                search = setup.decoder_set.make_searches(setup.snapshot, batch, width)[name]
                whole, parts = generative.time_parts(search, setup.repeats(batch))
                medians = {part: t.milliseconds(batch)["p50"] for part, t in parts.items()}
                row = {"size": len(setup), "precision": name, "batch": batch, "beams": width}
                rows.append(row | whole.milliseconds(batch) | {"parts": medians})
    return rows


def measure_overlap(setup: Setup) -> dict[str, dict[str, float]]:
    """Return, by precision and beam width, the share of fp32's results that are results too."""
    shares: dict[str, dict[str, float]] = {name: {} for name in PRECISIONS}
    for width in WIDTHS:
        searches = setup.decoder_set.make_searches(setup.snapshot, 64, width)
        for name in PRECISIONS:
            share = generative.overlap(searches["fp32"], searches[name], range(2))
            shares[name][str(width)] = share
    return shares


def build_rivals(setup: Setup) -> Rivals:
    """Return faiss's brute-force index and its graph."""
    return Rivals.build(setup.database.float32(), setup.faiss_folder, HNSW_EFFORT)


def measure_faiss(setup: Setup, rivals: Rivals) -> list[dict[str, Any]]:
    """Return the rows of all faiss indexes."""
    exact = rivals.flat
    rows = _measure_faiss_index(setup, exact, exact, 0)
    rows += _measure_faiss_index(setup, rivals.hnsw, exact, HNSW_EFFORT)
    lists = faiss_indexes.build_ivfpq(setup.database.float32(), setup.faiss_folder / "ivfpq")
    effort = min(32, faiss_indexes.list_count(len(setup)))
    return rows + _measure_faiss_index(setup, lists, exact, effort)


def _measure_faiss_index(
    setup: Setup, index: FaissIndex, exact: FaissIndex, effort: int
) -> list[dict[str, Any]]:
    pool, rows = setup.decoder_set.pool, []
    index.set_effort(effort)
    queries = pool.embeddings[:256].numpy()
    results, exact_results = (i.search(queries, generative.K) for i in (index, exact))
    recall = faiss_indexes.recall(results, exact_results)
    for batch in BATCHES:
        times = time_repeats(races.make_faiss_call(index, pool, batch), setup.repeats(batch))
        row = {
            "size": len(setup),
            "method": index.name,
            "setting": f"{index.effort} {effort}" if effort else "",
            "seconds": index.seconds,
            "bytes_per_image": index.bytes_per_image,
            "batch": batch,
            "recall": recall,
        }
        rows.append(row | times.milliseconds(batch))
    return rows


def measure_published(setup: Setup) -> tuple[Published, list[dict[str, Any]]]:
    """Return the published algorithm, and its rows at two beam widths."""
    seconds, rival = time_once(lambda: Published.build(setup.model, setup.database))
    assert isinstance(rival, Published)
    pool, rows = setup.decoder_set.pool, []
    few = replace(setup.plan.alone, minimum=min(5, setup.plan.alone.minimum), maximum=30)
    decoder = Decoder(setup.model, "fp32")
    for width in (10, races.PUBLISHED_BEAMS):
        search = Search(decoder, setup.snapshot, pool, setup.plan.compared_queries, width)
        agreement = generative.compare_with_published(search, setup.model, rival.trie)
        decode_ms, look_up_ms = (
            time_repeats(call, few).milliseconds()["p50"]
            for call in (rival.decode(pool, width), rival.look_up(pool, width))
        )
        row = {"size": len(setup), "beams": width, "build": seconds, "agreement": str(agreement)}
        row |= {"writing": decode_ms, "looking_up": look_up_ms, "agrees": agreement.all}
        rows.append(row)
    return rival, rows


def measure_live(setup: Setup) -> dict[str, Any]:
    """Measure the index on disk."""
    folder, plan = setup.cache / f"index-{len(setup)}-{os.getpid()}", setup.plan
    searches = live.SearchSettings(setup.decoder_set.pool, 64, 10)
    new_images = live.NewImages.draw(plan.recipe)
    every, rounds = plan.concurrent
    rounds = rounds if len(setup) == max(plan.sizes) else 1
    with live.create_index(setup.database, setup.model, folder) as create_seconds:
        opening = live.measure_opening(folder, plan.openings)
        with Index.open(folder, writable=True) as index:
            results = {
                "size": len(setup),
                "create": create_seconds,
                "open": opening,
                "precision": index.decoder.precision,
                "batch": searches.batch,
                "beams": searches.beams,
                "change": live.CHANGE,
                "added": live.CHANGE * plan.changes,
                "every": every,
                "filter": live.measure_filters(index, searches, plan.batched),
                "after_adding": live.measure_after_adding(
                    index, searches, new_images, plan.batched, plan.changes
                ),
                "concurrent": live.measure_during_changes(
                    index, searches, new_images, plan.batched, every, rounds
                ),
            }
            results |= live.measure_changes(index, new_images, len(setup), plan.changes)
            results["compact"] = time_once(index.compact)[0]
            results["single"] = live.measure_single_adds(index, new_images, plan.single_adds)
            results["reopen"] = live.measure_opening(folder, 1)["warm"]
    return results


def make_setups(plan: Plan, cache: Path, precisions: tuple[str, ...]) -> Iterator[Setup]:
    """Yield data and models at each size, smallest first, with decoders of these precisions."""
    database = synthetic.load_database(plan.recipe, max(plan.sizes), cache)
    model = generative.make_decoder(database.codes, plan.recipe.codebook, plan.layers)
    decoders = {name: Decoder(model, name) for name in precisions}
    for size in sorted(plan.sizes):
        show_progress(f"{size:,} images")
        part = database.first(size)
        snapshot = generative.make_snapshot(part.vectors, part.codes, part.codebooks)
        queries = synthetic.draw_queries(plan.recipe, part.vectors, plan.queries)
        decoder_set = DecoderSet(decoders, QueryPool.with_random_tokens(queries))
        yield Setup(plan, part, snapshot, decoder_set, model, cache)


def run_live(plan: Plan, cache: Path) -> list[dict[str, Any]]:
    """Measure only the index on disk, at each size."""
    return [measure_live(setup) for setup in make_setups(plan, cache, ())]


def run_race(plan: Plan, cache: Path) -> dict[str, Race]:
    """Compare searches with those of faiss at the largest size."""
    plan = replace(plan, sizes=(max(plan.sizes),))
    (setup,) = make_setups(plan, cache, PRECISIONS)
    rivals = build_rivals(setup)
    show_progress("searches, interleaved")
    return races.race_neighbours(setup.decoder_set, setup.snapshot, rivals, BATCHES, plan.race)


def run(plan: Plan, cache: Path) -> dict[str, Any]:
    """Measure everything but the real features."""
    small: Snapshot | None = None
    results: dict[str, Any] = {
        name: [] for name in ("codes", "build", "search", "live", "others", "published")
    }
    for setup in make_setups(plan, cache, PRECISIONS):
        snapshot, decoder_set = setup.snapshot, setup.decoder_set
        small = small or snapshot
        spread = synthetic.spread(setup.database.codes, plan.recipe.codebook)
        shape = {"levels": plan.recipe.levels, "codebook": plan.recipe.codebook}
        results["codes"].append(spread | shape | {"images": len(setup)})
        results["build"].append(measure_build(setup))
        is_last = len(setup) == max(plan.sizes)
        show_progress("search")
        results["search"] += measure_search(setup, PRECISIONS if is_last else PRECISIONS[:1])
        show_progress("faiss")
        rivals = build_rivals(setup)
        results["others"] += measure_faiss(setup, rivals)
        if is_last:
            show_progress("faiss and the small index, interleaved")
            results["overlap"] = measure_overlap(setup)
            results["races"] = {
                "neighbours": races.race_neighbours(
                    decoder_set, snapshot, rivals, BATCHES, plan.race
                ),
                "sizes": races.race_sizes(decoder_set, small, snapshot, 64, plan.race),
            }
        del rivals
        gc.collect()
        show_progress("the published algorithm")
        rival, rows = measure_published(setup)
        results["published"] += rows
        if is_last:
            results["races"]["published"] = races.race_published(
                decoder_set, snapshot, rival, BATCHES, plan.race
            )
        del rival
        gc.collect()
        show_progress("the index on disk")
        results["live"].append(measure_live(setup))
        results["encoding_seconds"] = setup.database.seconds
    show_progress("done")
    return results | {"sizes": sorted(plan.sizes)}


def show_progress(step: str) -> None:
    """Print the time and the step that begins to stderr."""
    print(f"{time.strftime('%H:%M:%S')} {step}", file=sys.stderr, flush=True)


def main() -> int:
    """Measure, and update the results: figures that are not measured again stay."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to check that it runs")
    parser.add_argument("--real", type=Path, action="append", default=[], metavar="DATA")
    parser.add_argument("--params", type=Path, action="append", default=[])
    parser.add_argument("--live", action="store_true", help="measure only the index on disk")
    parser.add_argument("--race", action="store_true", help="only race faiss, at the largest size")
    parser.add_argument("--layers", type=int, default=generative.LAYERS, help="of the decoder")
    parser.add_argument("--single-adds", type=int, default=20_000, metavar="N")
    parser.add_argument("--only-real", action="store_true", help="keep the synthetic results")
    parser.add_argument("--threads", type=int, help="of torch and faiss; default: torch's own")
    parser.add_argument("--cache", type=Path, default=Path(".cache/benchmarks"))
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    if len(options.real) != len(options.params):
        parser.error("give one --params for each --real")
    started = time.perf_counter()
    keep_freed_memory()
    torch.set_num_threads(options.threads or torch.get_num_threads())
    faiss_indexes.use_torch_threads()
    plan = QUICK if options.quick else FULL
    plan = replace(plan, sizes=tuple(options.sizes or plan.sizes), layers=options.layers)
    if options.live:
        plan = replace(plan, single_adds=options.single_adds)
        print(json.dumps(run_live(plan, options.cache), indent=2))
        return 0
    if options.race:
        print(report.render_race(run_race(plan, options.cache)))
        return 0
    file = options.results / "index.json"
    earlier = json.loads(file.read_text()) if file.exists() else {}
    if options.only_real:
        results = earlier
    else:
        results = run(plan, options.cache)
        results["about"] = describe_run(started, plan.layers, plan.recipe)
        results["real"] = earlier.get("real", {})
    for data, settings in zip(options.real, options.params, strict=True):
        show_progress(f"real features of {data}")
        workspace = Workspace(data=data, cache=options.cache, reports=data.parent / "reports")
        comparison = real.compare(params.load(settings), workspace, plan.alone)
        results["real"] = results.get("real", {}) | {settings.stem: comparison}
    write_json(file, results)
    text = report.render(results)
    write_bytes(options.results / "index.md", text.encode())
    figure.save(results, options.results)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
