"""Measure the speed of an index that is changed one image at a time.

    python benchmarks/single_changes.py --count 200000

Adds ``--count`` images one by one to a new index, replaces one of them half as often, and removes
half as many; a reader looks after every 100 changes. Prints the table of
``benchmarks/results/single_changes.md`` and writes it. Codes and embeddings are random, and there
is no image encoder. Run it on a machine that does nothing else.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl
import torch
from torch.nn.functional import normalize

from irgen.evaluation.table_format import render_markdown
from irgen.index.index import Index

WIDTH, LEVELS, SIZE = 256, 4, 256  # D, M, L
START, WINDOW, LOOK = 10_000, 1_000, 100  # images at first, changes summed up, changes a look
RESULTS = Path(__file__).parent / "results" / "single_changes.md"
COLUMNS = (
    "changes one by one",
    "number",
    *(f"{name}, ms" for name in ("first", "last", "mean", "slowest", "a look", "opening")),
)


def create(folder: Path) -> None:
    """Create an index of START images."""
    ids = [f"image-{row:08d}" for row in range(START)]
    Index.create(
        folder,
        models_writer=lambda models: (models / "none").touch(),
        config={},
        items=pl.DataFrame({"id": ids, "label": ["shirt"] * START}),
        codebooks=torch.randn(LEVELS, SIZE, WIDTH),
        codes=torch.randint(SIZE, (START, LEVELS)),
        embeddings=normalize(torch.randn(START, WIDTH)),
        trained=torch.ones(START, dtype=torch.bool),
    )


def measure(name: str, index: Index, count: int, change: Callable[[int], object]) -> list[str]:
    """Return a row of the table: ms of ``change(0)`` … ``change(count - 1)``."""
    folder, seconds, looks = index.folder.path, [], []
    with Index.open(folder) as reader:
        for number in range(count):
            start = time.perf_counter()
            change(number)
            seconds.append(time.perf_counter() - start)
            if number % LOOK == 0:
                start = time.perf_counter()
                reader.refresh()
                looks.append(time.perf_counter() - start)
    start = time.perf_counter()
    Index.open(folder).close()
    opening = time.perf_counter() - start
    first, last = (statistics.mean(part) for part in (seconds[:WINDOW], seconds[-WINDOW:]))
    times = (first, last, statistics.mean(seconds), max(seconds), statistics.median(looks), opening)
    return [name, f"{count:,}", *(f"{1000 * time:.1f}" for time in times)]


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=200_000)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    count, path = options.count, options.results
    torch.manual_seed(0)
    vectors, label = normalize(torch.randn(WINDOW, WIDTH)), pl.DataFrame({"label": ["shirt"]})

    def vector(number: int) -> torch.Tensor:
        return vectors[number % WINDOW, None]

    with tempfile.TemporaryDirectory() as home:
        create(Path(home) / "index")
        with Index.open(Path(home) / "index", writable=True) as index:
            changes = {
                "adds": (count, lambda n: index.add_encoded(vector(n), [f"new-{n}"], label)),
                "replacements of one image": (
                    count // 2,
                    lambda n: index.upsert_encoded(vector(n), ["new-0"], label),
                ),
                "removals": (count // 2, lambda n: index.remove([f"new-{n}"])),
            }
            rows = [measure(name, index, *change) for name, change in changes.items()]
    table = render_markdown(COLUMNS, rows, right=COLUMNS[1:])
    print(table)
    path.write_text(f"{table}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
