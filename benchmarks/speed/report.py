"""Write the results as Markdown."""

from collections.abc import Iterator
from typing import Any

from speed import bars, synthetic
from speed.ours import PARTS
from speed.tables import markdown, number, share

Results = dict[str, Any]


def text(results: Results) -> str:
    """All tables, the bars first."""
    sections = [
        ("Bars", _bars),
        ("Codes", _codes),
        ("Trie and bundle", _build),
        ("A search, and where its time goes", _search),
        ("Changes, filters, opening", _live),
        ("Others on the same vectors", _others),
        ("The published algorithm", _published),
        ("Precision of the decoder", _precisions),
        ("At the same precision@10, real features", _real),
    ]
    parts = [f"# The index, measured\n\n{results['about']['text']}"]
    for title, section in sections:
        if body := "\n\n".join(section(results)):
            parts.append(f"## {title}\n\n{body}")
    return "\n\n".join(parts) + "\n"


def _bars(results: Results) -> Iterator[str]:
    size = results["sizes"][-1]
    yield (
        f"At {size:,} images unless it says otherwise. Ratios are of medians of runs in turns, "
        "judged as measured and shown cut off towards what is worse. The precision is the decoder's"
        "; brute-force search and what the published algorithm runs are in float32."
    )
    judged = bars.judge(results)
    yield markdown(
        ["bar", "to reach", "decoder", "measured", "met"], [bar.shown() for bar in judged]
    )


def _codes(results: Results) -> Iterator[str]:
    yield (
        "How codes spread: perplexity of each level / L (1: all codes equally often), distinct "
        "codes / images, images that share an image's code (mean over images, itself included). "
        "Below, what the tokenizers trained on real images give."
    )
    heads = ["codes", "M", "L", "images", "perplexity / L by level", "distinct", "share a code"]
    rows = []
    for row in results["codes"]:
        name = f"synthetic, {row['images']:,}"
        rows.append([name, *_spread(row)])
    rows += [[row["name"], *_spread(row)] for row in synthetic.REAL]
    yield markdown(heads, rows)


def _spread(row: dict[str, Any]) -> list[str]:
    levels = row["levels"]
    shares = " ".join(f"{row[f'share/level_{m + 1}']:.2f}" for m in range(levels))
    counts = [str(levels), str(row["codebook"]), f"{row['images']:,}"]
    return [*counts, shares, share(row["distinct"]), number(row["per_code"])]


def _build(results: Results) -> Iterator[str]:
    yield (
        "The trie from codes: median and slowest of several builds; bytes an image of the trie "
        "alone, and of all that is kept of an image in memory (trie, codes, float16 embedding, key)"
        "; the bundle, which is written once, with ids and two columns of metadata."
    )
    heads = ["images", "build s", "slowest s", "trie bytes", "all bytes", "make the bundle s"]
    yield markdown(
        heads,
        [
            [
                f"{row['size']:,}",
                number(row["p50"]),
                number(row["slowest"]),
                number(row["trie_bytes"]),
                number(row["all_bytes"]),
                number(live["create"]),
            ]
            for row, live in zip(results["build"], results["live"], strict=True)
        ],
    )


def _search(results: Results) -> Iterator[str]:
    yield (
        "ms a query, k = 10, re-ranked by embedding. The parts are medians of their own: the "
        "decoder reading the image's tokens (the image encoder is not in it), the decoder's steps, "
        "trie and beams, candidates gathered and re-ranked; `trie / steps` is what the trie costs "
        "beside the decoder. p99 is the batch's, divided by its size."
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
                number(row["p50"]),
                number(row["p99"]),
                str(row["repetitions"]),
                *(number(parts[name]) for name in PARTS),
                share(parts["trie"] / parts["steps"]),
            ]
        )
    yield markdown(heads, rows)


def _live(results: Results) -> Iterator[str]:
    for live in results["live"]:
        busy, quiet = live["concurrent"]["busy"], live["concurrent"]["quiet"]
        change = f"{live['change']:,}"
        found, late, opened = live["filter"], live["after_adding"], live["open"]
        rows = [
            ["open, files not in the system's cache", f"{number(opened['cold'])} s"],
            ["open again", f"{number(opened['warm'])} s"],
            ["load the networks besides, at the first search", f"{number(opened['models'])} s"],
            [f"add {change} encoded images: median", f"{number(live['add']['p50'])} s"],
            [f"add {change}: slowest", f"{number(live['add']['slowest'])} s"],
            [f"remove {change}: median", f"{number(live['remove']['p50'])} s"],
            [f"remove {change}: slowest", f"{number(live['remove']['slowest'])} s"],
            ["compact", f"{number(live['compact'])} s"],
            ["search of everything", f"{number(found['everything'])} ms"],
            ["search of 1 %, filter used before", f"{number(found['remembered'])} ms"],
            ["search of 1 %, a new filter each batch", f"{number(found['new'])} ms"],
            [
                f"search with {live['added']:,} images added since training",
                f"{number(late['added'])} ms (before: {number(late['before'])})",
            ],
            [
                f"search while {change} are added and removed every {live['every']:g} s: mean",
                f"{number(busy['mean'])} ms (quiet: {number(quiet['mean'])})",
            ],
            ["the same, p99", f"{number(busy['p99'])} ms (quiet: {number(quiet['p99'])})"],
            [
                "changes that began late, the one before still running",
                share(live["concurrent"]["late"]),
            ],
        ]
        yield (
            f"{live['size']:,} images; searches through `Index.search` (ids and metadata "
            f"included), ms a query at batch {live['batch']}, beam {live['beams']}, decoder in "
            f"{live['precision']}."
        )
        yield markdown(["what", "measured"], rows)


def _others(results: Results) -> Iterator[str]:
    yield (
        "ms a query, k = 10; recall@10 is the share of the exact ten nearest vectors. (Generative "
        "search has none here: its decoder's weights are made up. What its answers are worth is in "
        "the README and, if it was run, in the last table.) Time to build is of training and "
        "filling, with the same number of threads, in this run "
        "or the one that kept the index; bytes are the index's as a file, vectors "
        "included where it needs them."
    )
    heads = ["images", "method", "setting", "build s", "bytes", "batch", "p50", "p99", "recall@10"]
    yield markdown(
        heads,
        [
            [
                f"{row['size']:,}",
                row["method"],
                row["setting"] or "–",
                number(row["seconds"]),
                number(row["bytes_per_image"]),
                str(row["batch"]),
                number(row["p50"]),
                number(row["p99"]),
                number(row["recall"]),
            ]
            for row in results["others"]
        ],
    )


def _published(results: Results) -> Iterator[str]:
    yield (
        "Written anew from the paper and what its code does: one query at a time, a trie of dicts "
        "walked in Python, the decoder run again over each beam's whole prefix and all image "
        "tokens at every step, images found by comparing each code with all. Same weights, "
        "float32. `same codes`: as ours in fp32 at the same beam."
    )
    heads = ["images", "beam", "ms writing", "ms looking up", "dict trie s", "same codes"]
    yield markdown(
        heads,
        [
            [
                f"{row['size']:,}",
                str(row["beams"]),
                number(row["writing"]),
                number(row["looking_up"]),
                number(row["build"]),
                row["agreement"],
            ]
            for row in results["published"]
        ],
    )


def _precisions(results: Results) -> Iterator[str]:
    yield (
        "ms a query at the largest size, alone and in batches of 64, and the share of the images "
        "found in fp32 that are found too (made-up weights, so a rough guide; see the last table "
        "for trained ones)."
    )
    size, cells = results["sizes"][-1], {}
    for row in results["search"]:
        if row["size"] == size:
            cells[row["precision"], row["batch"], row["beams"]] = number(row["p50"])
    ways = [(batch, beams) for batch in (1, 64) for beams in (1, 10, 30)]
    heads = [f"{'alone' if batch == 1 else f'batch {batch}'}, beam {w}" for batch, w in ways]
    kept = results["overlap"]
    widths = ["1", "10", "30"]
    yield markdown(
        ["decoder", *heads, *(f"as fp32, beam {w}" for w in widths)],
        [
            [name, *(cells[name, *way] for way in ways), *(share(kept[name][w]) for w in widths)]
            for name in kept
        ],
    )


def _real(results: Results) -> Iterator[str]:
    for name, real in results.get("real", {}).items():
        yield (
            f"{name}: {real['database']:,} images of {real['width']} dimensions, {real['queries']} "
            "queries; precision@10 by label. Each row: a width of generative search, and the "
            "cheapest setting of the others that is at least as precise, with its ms a query in "
            "batches of 64 / alone."
        )
        methods = list(real["matched"][0]["methods"])
        rows = []
        for match in real["matched"]:
            cells = [_setting(match["methods"][method]) for method in methods]
            rows.append([f"{match['precision']:.3f}", *cells])
        yield markdown(["P@10 ≥", *methods], rows)
        yield "All settings:"
        yield markdown(
            ["method", "effort", "P@10", "ms batch 64", "ms alone"],
            [
                [
                    row["method"],
                    str(row["effort"] or "–"),
                    f"{row['precision']:.3f}",
                    number(row["batch_64"]),
                    number(row["batch_1"]),
                ]
                for row in real["rows"]
            ],
        )


def _setting(row: dict[str, Any] | None) -> str:
    if row is None:
        return "not reached"
    effort = f"{row['effort']}: " if row["effort"] else ""
    times = f"{number(row['batch_64'])} / {number(row['batch_1'])} ms"
    return f"{effort}{times} ({row['precision']:.3f})"
