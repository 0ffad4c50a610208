"""Run one stage over a made-up catalogue of any size, and say what it took.

    python benchmarks/scale_stages.py pairs --rows 100000 --root /tmp/scale/100000

``benchmarks/scale.py`` calls it, a process a stage. A stage reads what the ones before it wrote
below ``--root``. With ``--prepare`` its made-up inputs are written, else it prints a line of JSON:
seconds, peak memory and bytes written.

Made up is what would take days, or what the number of rows does not change:

- An image is a PNG of 16 × 16 random pixels. Its label, fingerprint and embedding are made up too,
  so few images are encoded: that time is proportional to the number of images.
- Embeddings are clustered unit vectors, 256 wide (``speed/synthetic.py``). The encoder and the
  tokenizer's adapter are untrained.
- Pairs are the nearest of any label, as if there were one label: the hardest case.
- Of the tokenizer, only the codebooks are fitted. The retriever tunes its encoder, so that it
  decodes the images that it draws, for STEPS gradient steps: their number is a setting.
- A label has 100 images.
- If ``trie`` is the first stage that runs, codes and models are made up, too (``scale_codes.py``).
"""

import argparse
import json
import resource
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import torch
from peak_memory import watch_memory
from scale_codes import (
    RECIPE,
    count_labels,
    prepare_codes,
    prepare_retriever,
    save_codebooks,
)
from speed import synthetic

from irgen.catalog import check, manifest
from irgen.catalog.captions import copy_captions
from irgen.catalog.sources.listing import Entry, Listing, Source
from irgen.catalog.sync import sync
from irgen.checkpoints.weights import create_encoder
from irgen.compute.machine import keep_freed_memory
from irgen.encoding.cache import ArrayStore
from irgen.encoding.encode import fingerprint, open_encoding
from irgen.files.sealed import read_array, write_parquet
from irgen.files.workspace import Workspace
from irgen.index.index import Index
from irgen.models import quantizer
from irgen.params import Params, load
from irgen.stages import (
    catalog,
    drift,
    evaluate,
    features,
    identifiers,
    index,
    pairs,
    report,
    retriever,
    trie,
)

ROOT = Path(__file__).resolve().parents[1]
SIDE, STEPS, BATCH = 16, 20, 64
Metrics = dict[str, float]
ENCODER = {"patch_size": 8, "embed_dim": RECIPE.width, "depth": 1, "num_heads": 4}


def read_params() -> Params:
    """Return the project's parameters, as wide as the made-up embeddings."""
    params = load(ROOT / "params.yaml")
    return replace(
        params,
        encoder=replace(params.encoder, options=ENCODER),
        pairs=replace(params.pairs, rule="near"),
        retriever=replace(params.retriever, tune_encoder=True, steps=STEPS),
        tokenizer=replace(
            params.tokenizer,
            tune_encoder=False,
            width=RECIPE.width,
            levels=RECIPE.levels,
            codebook=RECIPE.codebook,
        ),
    )


def make_source(rows: int) -> Source:
    """Return a source of images in class folders, whose bytes are drawn as they are read."""

    labels = count_labels(rows)

    def list_entries() -> Iterator[Entry]:
        for number in range(rows):
            key = f"label-{number % labels:06d}/{number:09d}.png"
            yield Entry(key, f"etag-{number}", partial(draw_png, number))

    return Source(
        name="made up", stamp=None, load=lambda: Listing(entries=list_entries(), count=rows)
    )


def draw_png(number: int) -> bytes:
    """Return a grey PNG of SIDE × SIDE random pixels, seeded by ``number``."""
    pixels = np.random.default_rng(number).bytes(SIDE * SIDE)
    lines = b"".join(b"\0" + pixels[start : start + SIDE] for start in range(0, SIDE**2, SIDE))
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 0, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(lines, 0)), (b"IEND", b""))
    chunks = (struct.pack(">I", len(data)) + kind + data for kind, data in parts)
    sums = (struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(map(bytes.__add__, chunks, sums))


def run_download(params: Params, workspace: Workspace, rows: int) -> None:
    """Fetch and pack all images; a second time, find that nothing has changed."""
    sync(make_source(rows), workspace.stage("download"))
    copy_captions(workspace.stage("download"), params.download.captions)


def prepare_catalog(params: Params, workspace: Workspace, rows: int) -> None:
    """Say that all images were checked, each with a fingerprint of its own."""
    sha256s = manifest.read(workspace.stage("download"))["sha256"]
    draw, ones = np.random.default_rng(0), np.ones(rows, np.int32)
    prints = {name: draw.integers(0, 2**64, rows, np.uint64) for name in ("across", "down")}
    sides = {"width": SIDE * ones, "height": SIDE * ones}
    table = pl.DataFrame({"sha256": sha256s, **sides, **prints})
    columns = {n: table.get_column(n, default=pl.Series([None] * rows)) for n in check.SCHEMA}
    checked = pl.DataFrame(columns, schema=check.SCHEMA)
    write_parquet(workspace.cache / "catalog" / check.NAME, checked)


def prepare_features(params: Params, workspace: Workspace, rows: int) -> None:
    """Write made-up features into the cache."""
    encoder = create_encoder(params.encoder, params.seed)
    encoding = open_encoding(params.compute, workspace)
    name = fingerprint([encoder], encoder.decoding, encoding.machine)
    store = ArrayStore(workspace.cache / "encodings" / name)
    sha256s = manifest.read(workspace.stage("download"))["sha256"].to_list()
    start = 0
    for vectors in synthetic.draw_chunks(RECIPE, rows):
        store.add(sha256s[start : start + len(vectors)], vectors.numpy())
        start += len(vectors)


def prepare_trie(params: Params, workspace: Workspace, rows: int) -> None:
    """Write made-up codes, unless the stages that make them have run. A download of one image is
    there, too, since later stages open it."""
    if not workspace.stage("identifiers").exists():
        sync(make_source(1), workspace.stage("download"))
        prepare_codes(params, workspace, rows)


def run_codebooks(params: Params, workspace: Workspace, rows: int) -> None:
    """Fit codebooks to the training images' features, and save a tokenizer that has them."""
    settings = params.tokenizer
    path = workspace.existing("features", "train", "features.npy")
    vectors = torch.from_numpy(read_array(path))
    shape, iterations = (settings.levels, settings.codebook), settings.kmeans_iterations
    codebooks, _ = quantizer.fit(vectors, None, shape, iterations, params.seed)
    quantizer.usage(quantizer.encode(vectors, codebooks), settings.codebook)
    save_codebooks(params, workspace, rows, codebooks)


def run_search(params: Params, workspace: Workspace, rows: int) -> Metrics:
    """Open the index, and search by random pictures: one, and a batch. Return milliseconds a query,
    each after a first search that does not count."""
    draw, milliseconds = np.random.default_rng(0), {}
    with Index.open(workspace.existing("index")) as opened:
        for name, count in (("single", 1), ("batch", BATCH)):
            pictures = draw.integers(0, 256, (count, 1, SIDE, SIDE), np.uint8)
            opened.search(torch.from_numpy(pictures), k=10)
            began = time.perf_counter()
            opened.search(torch.from_numpy(pictures), k=10)
            milliseconds[f"{name}_ms"] = 1000 * (time.perf_counter() - began) / count
    return milliseconds


def run_stage(run: Callable, params: Params, workspace: Workspace, rows: int) -> Metrics:
    """Run a stage of the pipeline, and return its metrics."""
    return run(params, workspace, lambda row, step: None)


Step = Callable[[Params, Workspace, int], Metrics | None]
STAGES: dict[str, Step] = {
    "download": run_download,
    "download, unchanged": run_download,
    "catalog": partial(run_stage, catalog.run),
    "features": partial(run_stage, features.run),
    "pairs": partial(run_stage, pairs.run),
    "codebooks": run_codebooks,
    "identifiers": partial(run_stage, identifiers.run),
    "trie": partial(run_stage, trie.run),
    "retriever": partial(run_stage, retriever.run),
    "index": partial(run_stage, index.run),
    "search": run_search,
    "evaluate": partial(run_stage, evaluate.run),
    "drift": partial(run_stage, drift.run),
    "report": partial(run_stage, report.run),
}
PREPARED: dict[str, Step] = {
    "catalog": prepare_catalog,
    "features": prepare_features,
    "trie": prepare_trie,
    "index": prepare_retriever,
}


def count_bytes(folder: Path) -> int:
    """Return the bytes of all files below ``folder``."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def measure(name: str, rows: int, root: Path) -> dict[str, float | str | None]:
    """Run a stage; return what it took. ``peak_bytes``: what the process held at most, libraries
    included (``peak_memory.py``); ``resident_bytes``: with the pages of its mapped files, which the
    system takes back when memory is short. ``recall``, ``single_ms``, ``batch_ms``: the stage's
    metrics of these names; None if it has none."""
    params, workspace = read_params(), Workspace.at(root)
    before = count_bytes(workspace.data)
    with watch_memory() as peak:
        began = time.perf_counter()
        metrics = STAGES[name](params, workspace, rows) or {}
        seconds = time.perf_counter() - began
    return {
        "stage": name,
        "rows": rows,
        "seconds": seconds,
        "peak_bytes": peak.bytes,
        "resident_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "disk_bytes": count_bytes(workspace.data) - before,
        "recall": metrics.get("recall"),
        "single_ms": metrics.get("single_ms"),
        "batch_ms": metrics.get("batch_ms"),
    }


def main() -> None:
    """Prepare a stage, or measure it and print that as JSON, on the last line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--prepare", action="store_true")
    arguments = parser.parse_args()
    name, rows, root = arguments.stage, arguments.rows, arguments.root
    keep_freed_memory()
    if not arguments.prepare:
        print(json.dumps(measure(name, rows, root)))
    elif name in PREPARED:
        PREPARED[name](read_params(), Workspace.at(root), rows)


if __name__ == "__main__":
    main()
