"""Render the results of the benchmark of the index as Markdown."""

from collections.abc import Iterator
from typing import Any

from speed import synthetic
from speed.generative import PARTS, PRECISIONS
from speed.races import Race
from speed.tables import format_cautiously, format_number, format_share, render_table
from speed.targets import list_targets

Results = dict[str, Any]
RUNNERS = {
    "faiss": "brute-force search (faiss)",
    "irgen": "brute-force search (irgen)",
    "hnsw": "HNSW (faiss)",
    **{name: f"generative, {name}" for name in PRECISIONS},
}


def render(results: Results) -> str:
    """Return all tables, the targets first."""
    sections = [
        ("Targets", _targets),
        ("Codes", _codes),
        ("Trie and bundle", _build),
        ("A search, and where its time goes", _search),
        ("Changes, filters, opening", _live),
        ("Raced with faiss", _race),
        ("faiss on the same vectors", _faiss),
        ("The published algorithm", _published),
        ("Precision of the decoder", _precisions),
        ("At the same precision@10, real features", _real),
    ]
    parts = [f"# The index, measured\n\n{results['about']['text']}"]
    for title, section in sections:
        if body := "\n\n".join(section(results)):
            parts.append(f"## {title}\n\n{body}")
    return "\n\n".join(parts) + "\n"


def _targets(results: Results) -> Iterator[str]:
    size = results["sizes"][-1]
    yield (
        f"At {size:,} images unless a row names another size. Ratios are of medians of interleaved "
        "runs. They are compared with the limit as measured, and shown rounded to the worse side. "
        "The column *decoder* is the decoder's precision; brute-force search and the published "
        "algorithm run in float32."
    )
    rows = [target.cells() for target in list_targets(results)]
    yield render_table(["target", "limit", "decoder", "measured", "met"], rows)


def _codes(results: Results) -> Iterator[str]:
    yield (
        "Use of the codebooks: perplexity of each level / L (1: all codes equally often), distinct "
        "codes / images, images that share an image's code (mean over images, itself included). "
        "The last rows are of tokenizers that were trained on real images."
    )
    heads = ["codes", "M", "L", "images", "perplexity / L by level", "distinct", "share a code"]
    rows = []
    for row in results["codes"]:
        name = f"synthetic, {row['images']:,}"
        rows.append([name, *_spread(row)])
    rows += [[row["name"], *_spread(row)] for row in synthetic.REAL]
    yield render_table(heads, rows)


def _spread(row: dict[str, Any]) -> list[str]:
    levels = row["levels"]
    shares = " ".join(f"{row[f'share/level_{m + 1}']:.2f}" for m in range(levels))
    counts = [str(levels), str(row["codebook"]), f"{row['images']:,}"]
    return [*counts, shares, format_share(row["distinct"]), format_number(row["per_code"])]


def _build(results: Results) -> Iterator[str]:
    yield (
        "Building the trie from codes: median and slowest of several builds; bytes an image of the "
        "trie alone, and of everything in memory (trie, codes, float16 embedding, key); seconds to "
        "write the index to disk, with ids and two columns of metadata."
    )
    heads = ["images", "build s", "slowest s", "trie bytes", "all bytes", "write the index s"]
    yield render_table(
        heads,
        [
            [
                f"{row['size']:,}",
                format_number(row["p50"]),
                format_number(row["slowest"]),
                format_number(row["trie_bytes"]),
                format_number(row["all_bytes"]),
                format_number(live["create"]),
            ]
            for row, live in zip(results["build"], results["live"], strict=True)
        ],
    )


def _search(results: Results) -> Iterator[str]:
    yield (
        "ms a query, k = 10, re-ranked by embedding. Each part has its own median: `read`, the "
        "decoder reads the image's tokens (without the image encoder); `steps`, the decoder's "
        "steps; `trie`, trie and beams; `candidates`, gathered and re-ranked. `trie / steps` is "
        "the cost of the trie relative to the decoder's steps. p99 is the batch's, divided by its "
        "size."
    )
    heads = ["images", "decoder", "batch", "beam", "p50", "p99", "calls", *PARTS, "trie / steps"]
    rows = []
    for row in results["search"]:
        parts = row["parts"]
        rows.append(
            [
                f"{row['size']:,}",
                row["precision"],
                str(row["batch"]),
                str(row["beams"]),
                format_number(row["p50"]),
                format_number(row["p99"]),
                str(row["repetitions"]),
                *(format_number(parts[name]) for name in PARTS),
                format_share(parts["trie"] / parts["steps"]),
            ]
        )
    yield render_table(heads, rows)


def _live(results: Results) -> Iterator[str]:
    for live in results["live"]:
        busy, quiet = live["concurrent"]["busy"], live["concurrent"]["quiet"]
        change = f"{live['change']:,}"
        filtered, grown, opened = live["filter"], live["after_adding"], live["open"]
        rows = [
            ["open, files not in the system's cache", f"{format_number(opened['cold'])} s"],
            ["open again", f"{format_number(opened['warm'])} s"],
            ["load the networks, at the first search", f"{format_number(opened['models'])} s"],
            [f"add {change} encoded images: median", f"{format_number(live['add']['p50'])} s"],
            [f"add {change}: slowest", f"{format_number(live['add']['slowest'])} s"],
            [f"remove {change}: median", f"{format_number(live['remove']['p50'])} s"],
            [f"remove {change}: slowest", f"{format_number(live['remove']['slowest'])} s"],
            ["compact", f"{format_number(live['compact'])} s"],
            ["search of all images", f"{format_number(filtered['everything'])} ms"],
            ["search of 1 %, filter used before", f"{format_number(filtered['remembered'])} ms"],
            ["search of 1 %, a new filter each batch", f"{format_number(filtered['new'])} ms"],
            [
                f"search with {live['added']:,} images added since training",
                f"{format_number(grown['added'])} ms (before: {format_number(grown['before'])})",
            ],
            [
                f"search while {change} are added and removed every {live['every']:g} s: mean",
                f"{format_number(busy['mean'])} ms (quiet: {format_number(quiet['mean'])})",
            ],
            [
                "the same, p99",
                f"{format_number(busy['p99'])} ms (quiet: {format_number(quiet['p99'])})",
            ],
            [
                "changes that began late because the one before still ran",
                format_share(live["concurrent"]["late"]),
            ],
        ]
        yield (
            f"{live['size']:,} images; searches through `Index.search` (ids and metadata "
            f"included), ms a query at batch {live['batch']}, beam {live['beams']}, decoder in "
            f"{live['precision']}."
        )
        yield render_table(["what", "measured"], rows)


def _race(results: Results) -> Iterator[str]:
    yield (
        f"All methods took turns, query by query and batch by batch, over {results['sizes'][-1]:,} "
        "images: median ms a query, and how many times as fast as faiss's brute-force search."
    )
    yield render_race(results["races"]["neighbours"])


def render_race(race: dict[str, Race]) -> str:
    """Return the table of a race, from its results by batch."""
    heads = ["method"]
    for batch in race:
        heads += ["ms alone" if batch == "1" else f"ms in batches of {batch}", "×"]
    rows = []
    for runner, name in RUNNERS.items():
        row = [name]
        for times in race.values():
            ratio = format_cautiously(times["faiss"] / times[runner], more_is_better=True)
            row += [format_number(times[runner]), ratio]
        rows.append(row)
    return render_table(heads, rows)


def _faiss(results: Results) -> Iterator[str]:
    yield (
        "ms a query, k = 10; recall@10 is the share of the exact ten nearest vectors. (Generative "
        "search has none here, because its decoder has random weights. Its quality is in the "
        "README and, if it was run, in the last table.) `build s`: training and filling, with the "
        "same number of threads, in this run or in the earlier one that stored the index. Bytes "
        "are of the index as a file, with the vectors if it needs them."
    )
    heads = ["images", "method", "setting", "build s", "bytes", "batch", "p50", "p99", "recall@10"]
    yield render_table(
        heads,
        [
            [
                f"{row['size']:,}",
                row["method"],
                row["setting"] or "–",
                format_number(row["seconds"]),
                format_number(row["bytes_per_image"]),
                str(row["batch"]),
                format_number(row["p50"]),
                format_number(row["p99"]),
                format_number(row["recall"]),
            ]
            for row in results["others"]
        ],
    )


def _published(results: Results) -> Iterator[str]:
    yield (
        "Implemented from the paper and the behaviour of its code: one query at a time, a trie of "
        "dicts walked in Python, the decoder run again over each beam's whole prefix and all image "
        "tokens at every step, images looked up by comparing each code with all. Same weights, "
        "float32. `same codes`: as generative search in fp32 with the same beam width."
    )
    heads = ["images", "beam", "ms decoding", "ms look-up", "dict trie s", "same codes"]
    yield render_table(
        heads,
        [
            [
                f"{row['size']:,}",
                str(row["beams"]),
                format_number(row["writing"]),
                format_number(row["looking_up"]),
                format_number(row["build"]),
                row["agreement"],
            ]
            for row in results["published"]
        ],
    )


def _precisions(results: Results) -> Iterator[str]:
    yield (
        "ms a query at the largest size, alone and in batches of 64, and the share of the results "
        "in fp32 that are results here too (random weights, so a rough guide; the last table has "
        "trained ones)."
    )
    size, cells = results["sizes"][-1], {}
    for row in results["search"]:
        if row["size"] == size:
            cells[row["precision"], row["batch"], row["beams"]] = format_number(row["p50"])
    columns = [(batch, beams) for batch in (1, 64) for beams in (1, 10, 30)]
    heads = [f"{'alone' if batch == 1 else f'batch {batch}'}, beam {w}" for batch, w in columns]
    overlaps = results["overlap"]

    yield render_table(
        ["decoder", *heads, *(f"as fp32, beam {w}" for w in (1, 10, 30))],
        [
            [
                name,
                *(cells[name, *column] for column in columns),
                *(format_share(shares[width]) for width in ("1", "10", "30")),
            ]
            for name, shares in overlaps.items()
        ],
    )


def _real(results: Results) -> Iterator[str]:
    for name, real in results.get("real", {}).items():
        yield (
            f"{name}: {real['database']:,} images of {real['width']} dimensions, {real['queries']} "
            "queries; precision@10 by label. Each row: a beam width of generative search, and of "
            "each other method the cheapest setting that is at least as precise, with its ms a "
            "query in batches of 64 / alone."
        )
        methods = list(real["matched"][0]["methods"])
        rows = []
        for match in real["matched"]:
            cells = [_format_setting(match["methods"][method]) for method in methods]
            rows.append([f"{match['precision']:.3f}", *cells])
        yield render_table(["P@10 ≥", *methods], rows)
        yield "All settings:"
        yield render_table(
            ["method", "effort", "P@10", "ms batch 64", "ms alone"],
            [
                [
                    row["method"],
                    str(row["effort"] or "–"),
                    f"{row['precision']:.3f}",
                    format_number(row["batch_64"]),
                    format_number(row["batch_1"]),
                ]
                for row in real["rows"]
            ],
        )


def _format_setting(row: dict[str, Any] | None) -> str:
    if row is None:
        return "not reached"
    effort = f"{row['effort']}: " if row["effort"] else ""
    times = f"{format_number(row['batch_64'])} / {format_number(row['batch_1'])} ms"
    return f"{effort}{times} ({row['precision']:.3f})"
