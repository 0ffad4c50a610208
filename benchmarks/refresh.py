"""Time a project's own index: its copy, the search for edits, and a refresh onto the next release.

    python benchmarks/made_up_index.py --like . --root /tmp/large --images 1000000 --releases 2
    python benchmarks/refresh.py --root /tmp/large

``--root``: a project that ``made_up_index.py`` made, with two releases of the same models. Its own
index is made anew, gets ``--edits`` additions, as many replacements and as many removals, and is
refreshed when the second release is served. While that runs, a writer adds one image after the
other. Prints seconds, the longest time for which that writer was kept out, and peak memory.
"""

import argparse
import resource
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread

import polars as pl
import torch
from speed.stopwatch import time_once
from tabulate import tabulate
from torch.nn.functional import normalize

from irgen.index.index import Index
from irgen.releases import own_index, store


def upsert_random(index: Index, ids: list[str]) -> None:
    """Add or replace images, with random embeddings."""
    width = index.folder.codebooks.shape[2]
    metadata = pl.DataFrame({"sha256": [f"{number:064x}" for number in range(len(ids))]})
    index.upsert_encoded(normalize(torch.randn(len(ids), width), dim=1), ids, metadata)


def edit(root: Path, count: int) -> None:
    """Make the edits in the own index."""
    with own_index.open_writer(root) as index:
        ids = index.view.ids(torch.randperm(len(index))[: 2 * count].numpy())
        upsert_random(index, [*(f"mine/{number}" for number in range(count)), *ids[:count]])
        index.remove(ids[count:])


def write_until(root: Path, ended: Event, seconds: list[float]) -> None:
    """Add one image after the other, and note how long each took."""
    while not ended.is_set():
        started = time.perf_counter()
        with own_index.open_writer(root, wait=600) as index:
            upsert_random(index, [f"late/{len(seconds)}"])
        seconds.append(time.perf_counter() - started)
        ended.wait(0.5)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--edits", type=int, default=1_000)
    arguments = parser.parse_args()
    root, rows = arguments.root, []

    def measure(name: str, action: Callable[[], object]) -> None:
        rows.append([name, time_once(action)[0]])

    second, first = store.list_releases(store.path_in(root))[:2]
    store.set_champion(store.path_in(root), first)
    shutil.rmtree(own_index.path_in(root), ignore_errors=True)
    measure("copy the served release", lambda: own_index.make_copy(root))
    measure(f"make {3 * arguments.edits:,} edits", lambda: edit(root, arguments.edits))
    with Index.open(own_index.path_in(root)) as index:
        measure("find the edits", lambda: own_index.find_edits(index))
    measure("open for one change", lambda: own_index.open_writer(root).close())
    store.set_champion(store.path_in(root), second)
    ended, seconds = Event(), list[float]()
    writer = Thread(target=write_until, args=(root, ended, seconds))
    writer.start()
    measure("refresh", lambda: own_index.refresh(root))
    ended.set()
    writer.join()
    rows.append(["longest single change meanwhile", max(seconds)])
    print(tabulate(rows, ("step", "seconds"), floatfmt=".2f"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{len(seconds)} changes meanwhile; peak {peak:.2f} GiB")
    with Index.open(own_index.path_in(root)) as index:
        late = [f"late/{number}" for number in range(len(seconds))]
        assert (index.view.find(late) >= 0).all(), "a change was lost"


if __name__ == "__main__":
    main()
