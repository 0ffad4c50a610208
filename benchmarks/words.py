"""Measure the search by words in an index.

    python benchmarks/words.py --index /tmp/large/releases/champion milk "red apple" jpg

Prints seconds and memory of the first search, which builds the full-text table, and milliseconds
for each of ``WORDS``: to find the images that have them, and to rank these.
"""

import argparse
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

from speed.stopwatch import time_once
from tabulate import tabulate

from irgen.index.index import Index
from irgen.index.view import View
from irgen.index.words import WordSearch

REPEATS = 5


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="+", metavar="WORDS")
    parser.add_argument("--index", type=Path, required=True, metavar="FOLDER")
    options = parser.parse_args()
    with Index.open(options.index) as index:
        view, search = index.view, WordSearch()
        before = peak_megabytes()
        seconds = least_seconds(lambda: search.find(view, options.words[0]), repeats=1)
        grown = peak_megabytes() - before
        print(f"{len(index):,} images: first search {seconds:.1f} s, {grown:.0f} MB more at most")
        rows = [measure(search, view, words) for words in options.words]
    print(tabulate(rows, ["words", "images", "ms to find", "ms to rank"], floatfmt=".1f"))


def measure(search: WordSearch, view: View, words: str) -> tuple[str, int, float, float]:
    """Return the images that have all ``words``, and milliseconds to find and to rank them."""
    find = least_seconds(lambda: search.find(view, words), REPEATS)
    rank = least_seconds(lambda: search.rank(view, words), REPEATS)
    return words, len(search.find(view, words)), 1000 * find, 1000 * rank


def least_seconds(call: Callable[[], Any], repeats: int) -> float:
    """Return the least time of ``repeats`` calls."""
    return min(time_once(call)[0] for _ in range(repeats))


def peak_megabytes() -> float:
    """Return the most memory that this process has had so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
