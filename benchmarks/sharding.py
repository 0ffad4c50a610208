"""Simulate an index whose images are divided among shards by their first code.

    python benchmarks/sharding.py digits=.
    python benchmarks/sharding.py "digits, 1 M made up=/tmp/large@."

Each argument is ``NAME=ROOT``, a project with an index and held-out queries. ``NAME=ROOT@QUERIES``
has queries of another project with the same models, as ``benchmarks/made_up_index.py`` makes them.
Writes ``sharding.md`` and ``sharding.json`` into ``--results``.

First codes are dealt out to shards, the most frequent ones first, each to the shard with the fewest
images. A query asks the shards in the order of their probability, which is the retriever's for
their first codes, until these hold a share of it; and the shard of its own code. One machine with
the whole index finds ten hits. *Kept* are those of them that lie in shards that were asked. Nothing
takes the place of the others, so the precision of a real sharded index is at least as high.
"""

import argparse
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from held_out import K, Queries, judge, read_queries
from tabulate import tabulate
from torch import Tensor

from irgen.files.records import write_json
from irgen.index.index import Index
from irgen.models import quantizer
from irgen.releases.own_index import source_folder
from irgen.search import beam, engine

SHARDS = (4, 8, 16, 32, 64, 128, 256)
PROBABILITIES = (0.5, 0.9, 0.99)  # of the shards that are asked, together


@dataclass(frozen=True)
class Searches:
    """Searches of Q queries in a whole index. ``first_codes`` (Q, L): probability of each first
    code; ``own`` (Q,): first code of the query's embedding; ``hits`` (Q, K): first codes of the
    hits, −1 for none; ``relevant`` (Q, K) bool; ``images`` (L,): how many have each first code."""

    first_codes: Tensor
    own: Tensor
    hits: Tensor
    relevant: Tensor
    images: Tensor


@dataclass(frozen=True)
class Row:
    """One row of the table; ``asked`` and ``most_asked`` (95 % of the queries ask no more) count
    shards, ``share_asked`` and ``largest`` are shares of the images."""

    name: str
    images: int
    shards: int
    largest: float
    probability: float
    asked: float
    most_asked: float
    share_asked: float
    kept: float
    precision: float
    precision_whole: float


def deal(images: Tensor, shards: int) -> Tensor:
    """Return the shard (L,) of each first code, given its ``images`` (L,).

    >>> deal(torch.tensor([5, 1, 3, 2]), 2).tolist()
    [0, 0, 1, 1]
    """
    owners, sizes = torch.zeros(len(images), dtype=torch.int64), torch.zeros(shards)
    for code in images.argsort(descending=True, stable=True).tolist():
        owners[code] = sizes.argmin()
        sizes[owners[code]] += images[code]
    return owners


def choose_shards(searches: Searches, owners: Tensor, shards: int, probability: float) -> Tensor:
    """Return which shards (Q, S) bool each query asks."""
    index = owners.expand_as(searches.first_codes)
    shares = torch.zeros(len(searches.own), shards).scatter_add_(1, index, searches.first_codes)
    ordered, order = shares.sort(1, descending=True)
    before = ordered.cumsum(1) - ordered  # what the shards asked earlier hold
    asked = torch.zeros_like(shares, dtype=torch.bool)
    asked.scatter_(1, order, (before < probability) & (ordered > 0))
    return asked.scatter_(1, owners[searches.own][:, None], True)


def simulate(name: str, searches: Searches, shards: int, probability: float) -> Row:
    """Return what the queries ask and keep if the index has this many shards."""
    owners = deal(searches.images, shards)
    asked = choose_shards(searches, owners, shards, probability)
    sizes = torch.zeros(shards).scatter_add_(0, owners, searches.images.float())
    exist = searches.hits >= 0
    kept = exist & asked.gather(1, owners[searches.hits.clamp_min(0)])
    counts, total = asked.sum(1).float(), int(searches.images.sum())
    return Row(
        name=name,
        images=total,
        shards=shards,
        largest=float(sizes.max()) / total,
        probability=probability,
        asked=float(counts.mean()),
        most_asked=float(counts.quantile(0.95)),
        share_asked=float((asked * sizes).sum(1).mean()) / total,
        kept=float(kept.sum() / exist.sum()),
        precision=float((kept & searches.relevant).float().mean()),
        precision_whole=float(searches.relevant.float().mean()),
    )


def search_whole(root: Path, queries_root: Path) -> Searches:
    """Search the whole index of the project ``root`` with the held-out queries of a project."""
    index = Index.open(source_folder(root))
    snapshot, size = index.view.snapshot, index.folder.codebooks.shape[1]
    codes = snapshot.segments[0].codes[:, 0].long()
    parts = [_search(index, queries, codes, size) for queries in read_queries(index, queries_root)]
    images = torch.bincount(codes, minlength=size)
    return Searches(*map(torch.cat, zip(*parts, strict=True)), images)


@torch.inference_mode()
def _search(index: Index, queries: Queries, codes: Tensor, size: int) -> tuple[Tensor, ...]:
    """Return the fields of ``Searches`` but the last, for a batch of queries."""
    features, snapshot = queries.features, index.view.snapshot
    state = index.decoder.start(features.summary, features.tokens)
    log_probs = beam.search(state, snapshot.live_tries, 1).first_code_log_probs
    probabilities = torch.nn.functional.pad(log_probs.exp(), (0, size - log_probs.shape[1]))
    own = quantizer.encode(features.embedding, index.folder.codebooks)[:, 0]
    hits = engine.search(index.decoder, features, snapshot, K + 1, index.options(K + 1))
    rows, relevant = judge(index, queries, hits.rows)
    return probabilities, own, codes[rows].masked_fill(rows < 0, -1), relevant


def simulate_all(name: str, searches: Searches) -> Iterator[Row]:
    """Yield a row for each number of shards that has a first code for every shard."""
    used = int((searches.images > 0).sum())
    for shards in SHARDS:
        if shards <= used:
            for probability in PROBABILITIES:
                yield simulate(name, searches, shards, probability)


def render(rows: list[Row]) -> str:
    """Return the table in Markdown."""
    headers = ("index", "shards", "largest holds", "probability", "shards asked (95 %)")
    headers += ("images in them", "hits kept", "P@10 (whole)")
    cells = [
        (
            f"{row.name} ({row.images:,})",
            row.shards,
            f"{row.largest:.1%}",
            f"{row.probability:.0%}",
            f"{row.asked:.1f} ({row.most_asked:.0f})",
            f"{row.share_asked:.1%}",
            f"{row.kept:.1%}",
            f"{row.precision:.3f} ({row.precision_whole:.3f})",
        )
        for row in rows
    ]
    return tabulate(cells, headers, tablefmt="github", disable_numparse=True) + "\n"


def main() -> None:
    """Simulate all projects and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("projects", nargs="+", metavar="NAME=ROOT[@QUERIES]")
    parser.add_argument("--results", type=Path, default=Path(__file__).with_name("results"))
    arguments = parser.parse_args()
    rows: list[Row] = []
    for project in arguments.projects:
        name, _, roots = project.partition("=")
        root, _, queries = roots.partition("@")
        rows += simulate_all(name, search_whole(Path(root), Path(queries or root)))
    (arguments.results / "sharding.md").write_text(render(rows))
    write_json(arguments.results / "sharding.json", [asdict(row) for row in rows])
    print(render(rows))


if __name__ == "__main__":
    main()
