"""Measure an index that keeps no embeddings, only the codes of its images.

    python benchmarks/codes_alone.py digits=.
    python benchmarks/codes_alone.py "digits, made up=/tmp/large@."

Arguments are those of ``benchmarks/sharding.py``. Writes ``codes-alone.md`` into ``--results``. The
models are the same each time; only what stands for the embedding of an image differs:

- *embeddings*: the stored ones, half precision;
- *rebuilt from codes*: the vector that the tokenizer's codebooks give for the image's codes;
- *log-probabilities alone*: nothing. Images are sorted by the retriever's log-probability of their
  code sequence, ties by a hash of their id.
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from held_out import K, judge, read_queries
from tabulate import tabulate
from torch import Tensor
from torch.nn.functional import normalize

from irgen.index.index import Index
from irgen.models import quantizer
from irgen.releases.own_index import source_folder
from irgen.search import engine
from irgen.search.engine import Options
from irgen.search.snapshot import Segment, Snapshot

HEADERS = ("index", "instead of embeddings", "bytes/image", "P@1", "P@10", "hit@10")


def make_variants(index: Index) -> Iterator[tuple[str, int, Snapshot, Options]]:
    """Yield the name of each variant, its bytes an image for embeddings, and what is searched."""
    snapshot, options = index.view.snapshot, index.options(K + 1)
    segment, codebooks = snapshot.segments[0], index.folder.codebooks
    rebuilt = normalize(quantizer.decode(segment.codes.long(), codebooks)[:, -1], dim=1)
    nothing = torch.zeros(1, codebooks.shape[2]).expand(len(segment), -1)
    yield "embeddings", 2 * codebooks.shape[2], snapshot, options
    yield "rebuilt from codes", 0, with_embeddings(snapshot, rebuilt), options
    alone = replace(options, rerank=False)
    yield "log-probabilities alone", 0, with_embeddings(snapshot, nothing), alone


def with_embeddings(snapshot: Snapshot, embeddings: Tensor) -> Snapshot:
    """Return the snapshot of an index without later changes with other embeddings (N, D)."""
    (old,) = snapshot.segments
    segment = Segment(old.trie, old.codes, embeddings, old.keys, old.trained)
    return replace(snapshot, segments=(segment,))


def measure(name: str, root: Path, queries_root: Path) -> list[list[object]]:
    """Return a row of the table for each variant of the index of the project ``root``."""
    index, table = Index.open(source_folder(root)), []
    batches = list(read_queries(index, queries_root))
    for variant, size, snapshot, options in make_variants(index):
        parts = []
        for queries in batches:
            hits = engine.search(index.decoder, queries.features, snapshot, K + 1, options)
            parts.append(judge(index, queries, hits.rows)[1].float())
        relevant = torch.cat(parts)
        figures = (relevant[:, 0].mean(), relevant.mean(), relevant.amax(1).mean())
        table.append([name, variant, size, *(f"{float(value):.3f}" for value in figures)])
    return table


def main() -> None:
    """Measure all projects and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("projects", nargs="+", metavar="NAME=ROOT[@QUERIES]")
    parser.add_argument("--results", type=Path, default=Path(__file__).with_name("results"))
    arguments = parser.parse_args()
    table: list[list[object]] = []
    for project in arguments.projects:
        name, _, roots = project.partition("=")
        root, _, queries = roots.partition("@")
        table += measure(name, Path(root), Path(queries or root))
    text = tabulate(table, HEADERS, tablefmt="github", disable_numparse=True) + "\n"
    (arguments.results / "codes-alone.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
