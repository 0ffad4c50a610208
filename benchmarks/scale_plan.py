"""Compute what 100 million and a billion images need, from what the other benchmarks measured.

    python benchmarks/scale_plan.py

Reads ``index.json``, ``scale.json``, ``serve.json`` and ``update.json`` in ``results/`` and writes
``scale-plan.md`` there, which docs/explanation/scale.md includes. Run it after any of them.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate

RESULTS = Path(__file__).with_name("results")
SIZES = (1_000_000, 100_000_000, 1_000_000_000)
WIDTH = 256  # D
SERVED_WIDTH = 64  # of the index of serve.json
CANDIDATES = 100  # images that a search ranks, by default
NEW_SHARE = 0.01  # of the images, each day
MEMORY, DISK = 64e9, 1e12  # bytes of the machine for which limits are computed
RELEASES = 4  # on the disk of a replica: three kept, one that is being fetched
SEARCHES = 1_000  # a second, of all users
DAY = 86_400


@dataclass(frozen=True)
class Measured:
    """Measured costs. Bytes an image: of the ``trie``, of codes, keys and flags (``rows``), of ids
    and metadata on disk (``metadata``) and in memory with all else but embeddings (``resident``).
    Seconds an image: to encode it, and to ``build`` the index from embeddings. ``sharing``: images
    that share an image's code, for each image of the catalogue. Searches a second of one service:
    ``small`` with the digits' models, ``large`` bound by the encoder of update.json."""

    trie: float
    rows: float
    metadata: float
    resident: float
    encode: float
    build: float
    sharing: float
    small: float
    large: float


def read(folder: Path = RESULTS) -> Measured:
    """Read the results of the other benchmarks."""
    index, scale, serve, update = (
        json.loads((folder / f"{name}.json").read_text())
        for name in ("index", "scale", "serve", "update")
    )
    built, codes = index["build"][-1], index["codes"][-1]
    small, large = serve["start"]["measured"]
    added = large["images"] - small["images"]
    rows = built["all_bytes"] - built["trie_bytes"] - 2 * WIDTH
    on_disk, in_memory = ((large[name] - small[name]) / added for name in ("disk", "memory"))
    embedding = 2 * SERVED_WIDTH
    encode = update["encoding_ms"] / 1e3
    return Measured(
        trie=built["trie_bytes"],
        rows=rows,
        metadata=on_disk - embedding - built["trie_bytes"] - rows,
        resident=in_memory - embedding,
        encode=encode,
        build=sum(
            stage["seconds"] / stage["rows"]
            for stage in scale["stages"]
            if stage["rows"] == SIZES[0] and stage["stage"] in ("identifiers", "trie", "index")
        ),
        sharing=(codes["per_code"] - 1) / codes["images"],
        small=serve["load"]["measured"]["searches"]["rate"],
        large=1 / encode,
    )


def format_number(value: float) -> str:
    """Return a number with two significant digits, or all digits before the point.

    >>> format_number(0.0123), format_number(1234.5)
    ('0.012', '1,234')
    """
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"


def plan(measured: Measured) -> list[list[str]]:
    """Return rows of what is needed for each number of images."""
    release = measured.trie + measured.rows + 2 * WIDTH + measured.metadata
    per_image = {
        "trie, GB": measured.trie / 1e9,
        "codes, keys, flags, GB": measured.rows / 1e9,
        "embeddings, GB": 2 * WIDTH / 1e9,
        "ids and metadata, GB": measured.metadata / 1e9,
        "**a release, GB**": release / 1e9,
        "memory of a replica without embeddings, GB": measured.resident / 1e9,
        "memory with them, GB": (measured.resident + 2 * WIDTH) / 1e9,
        "images that share a code, M = 4": measured.sharing,
        "encode all, days of one machine": measured.encode / DAY,
        "encode a day's 1 %, hours of one machine": NEW_SHARE * measured.encode / 3600,
        "codes, trie and index from embeddings, hours": measured.build / 3600,
    }
    return [
        [name, *(format_number(value * size) for size in SIZES)]
        for name, value in per_image.items()
    ]


def limits(measured: Measured) -> list[tuple[str, float, str]]:
    """Return limits of one machine: what it is, the images at which it is met, and the remedy;
    what is met first comes first."""
    release = measured.trie + measured.rows + 2 * WIDTH + measured.metadata
    met_at = [
        (
            f"images that share a code fill all {CANDIDATES} candidates (M = 4)",
            CANDIDATES / measured.sharing,
            "one more level of codes",
        ),
        (
            "memory, all embeddings in it",
            MEMORY / (measured.resident + 2 * WIDTH),
            "leave embeddings to the disk; a search reads those of its candidates",
        ),
        (
            "memory, while a new release is opened beside the old one",
            MEMORY / 2 / measured.resident,
            "more memory, or shards",
        ),
        ("disk", DISK / (RELEASES * release), "a larger disk, or shards"),
        (
            "encoding of a day's 1 % takes a day",
            DAY / (NEW_SHARE * measured.encode),
            "a GPU, or more machines",
        ),
    ]
    return sorted(met_at, key=lambda limit: limit[1])


def render(measured: Measured) -> str:
    """Return the tables in Markdown."""
    sizes = [f"{size:,} images" for size in SIZES]
    needs = tabulate(plan(measured), ["", *sizes], tablefmt="github", disable_numparse=True)
    rows = [
        [name, f"{images / 1e6:,.0f} million", remedy] for name, images, remedy in limits(measured)
    ]
    met = tabulate(rows, ["limit", "met at", "remedy"], tablefmt="github", disable_numparse=True)
    replicas = [
        ["the digits' models", f"{measured.small:,.0f}", f"{-(-SEARCHES // measured.small):,.0f}"],
        [
            "tf_efficientnet_lite0",
            f"{measured.large:,.0f}",
            f"{-(-SEARCHES // measured.large):,.0f}",
        ],
    ]
    headers = ["models", "searches/s of a replica", f"replicas for {SEARCHES:,} searches/s"]
    served = tabulate(replicas, headers, tablefmt="github", disable_numparse=True)
    return f"## What it needs\n\n{needs}\n\n## Limits\n\n{met}\n\n## Replicas\n\n{served}\n"


def main() -> None:
    """Write the tables."""
    text = render(read())
    (RESULTS / "scale-plan.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
