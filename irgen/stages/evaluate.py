"""Every search method on the same queries: quality, and how long it takes on this machine."""

import platform
import statistics
import time
from collections.abc import Callable, Mapping

import numpy as np
import polars as pl
import torch
from torch import Tensor
from tqdm import tqdm

from irgen.artifacts.identifiers import Identified, load_identified
from irgen.artifacts.retriever import frozen_reader, load_retriever
from irgen.artifacts.tokenizer import load_tokenizer
from irgen.catalog.shards import Images
from irgen.catalog.table import read_table
from irgen.compute import Machine, prepare
from irgen.encoding import Encoding, pixels
from irgen.evaluation import methods, metrics, runs
from irgen.evaluation.methods import Method
from irgen.files import atomic, file_digest, read_array, write_json
from irgen.models import quantizer
from irgen.models.encoder import ImageEncoder
from irgen.params import Params
from irgen.search import rank, trie
from irgen.training import checkpoint
from irgen.training.batches import in_order
from irgen.weights import create_encoder
from irgen.workspace import Workspace

DEEPEST = 1000  # ranks; map@R of a label with more positives counts the rest as missed


def run(params: Params, workspace: Workspace, log: Callable) -> dict[str, float]:
    """Writes ``data/evaluate/``: metrics.json, precision.csv and a run a method; and, beside DVC's
    outputs since it differs from machine to machine, ``reports/latency.json``."""
    machine = prepare(params.compute)
    queries, database = (
        read_table(workspace.existing("catalog", f"{role}.parquet"))
        for role in ("queries", "database")
    )
    identified = load_identified(workspace.existing("identifiers", "database"))
    encoder_pixels, compared = build_methods(params, workspace, identified, machine)
    asked = pixels(
        encoder_pixels, queries["sha256"].to_list(), _encoding(params, workspace, machine)
    )
    positives = runs.positives(
        queries["label"], queries["sha256"], database["label"], database["sha256"]
    )
    cutoffs = params.evaluate.cutoffs
    depth = max(*cutoffs, min(int(positives.max(initial=1)), DEEPEST))
    asked_for = runs.search_depth(depth, queries["sha256"], database["sha256"])
    found: dict[str, Mapping[str, float]] = {"queries": metrics.count_queries(positives)}
    times, curves, folder = {}, [], workspace.stage("evaluate")
    for name, method in compared.items():
        ids, scores, times[name] = ask(
            method, asked, asked_for, (params.evaluate.batch_size, machine), name
        )
        ids, scores = runs.without_self(ids, scores, queries["sha256"], database["sha256"], depth)
        hits = runs.relevance(ids, queries["label"], database["label"])
        quality = metrics.summarise(hits, positives, cutoffs)
        found[name] = quality | {"bytes_per_image": method.bytes_per_image}
        shown = max(cutoffs)
        for k, value in enumerate(metrics.precision_curve(hits, positives, shown), start=1):
            curves.append({"method": name, "k": k, "precision": value})
        table = runs.to_table(
            ids[:, :shown], scores[:, :shown], hits[:, :shown], identified.codes.numpy()
        )
        with atomic(folder / "runs" / f"{name}.parquet") as temporary:
            table.write_parquet(temporary)
    with atomic(folder / "precision.csv") as temporary:
        pl.DataFrame(curves).write_csv(temporary)
    write_json(folder / "metrics.json", found)
    write_json(
        workspace.reports / "latency.json",
        {
            "metrics_digest": file_digest(folder / "metrics.json"),
            "machine": describe(machine, params.evaluate.batch_size),
            "methods": times,
        },
    )
    return {f"{name}/{key}": value for name, row in found.items() for key, value in row.items()}


def _encoding(params: Params, workspace: Workspace, machine: Machine) -> Encoding:
    return Encoding(
        images=Images(workspace.existing("download")),
        machine=machine,
        settings=params.compute,
        cache=workspace.cache,
    )


def build_methods(
    params: Params, workspace: Workspace, identified: Identified, machine: Machine
) -> tuple[ImageEncoder, dict[str, Method]]:
    """The encoder whose decoding all methods share, and the methods by name, in order."""
    tokenizer, _ = load_tokenizer(workspace.existing("tokenizer", "tokenizer.safetensors"))
    pretrained = create_encoder(params.encoder, params.seed)
    reader = frozen_reader(pretrained, tokenizer, params.retriever.encoder)
    retriever = load_retriever(workspace.existing("retriever", "retriever.safetensors"), reader)
    device = machine.device
    for module in (tokenizer, pretrained, retriever):
        module.eval().to(device)
    arrays, _ = checkpoint.load(workspace.existing("trie", "trie.safetensors"))
    prefixes = trie.from_tensors(arrays).to(device)
    features = torch.from_numpy(
        np.array(read_array(workspace.existing("features", "database", "features.npy")))
    )
    codes, embeddings = identified.codes, identified.embeddings.to(device)
    codebooks = tokenizer.codebooks.cpu()
    rebuilt = quantizer.decode(codes, codebooks)[:, -1]  # (N, D)
    code_bytes = codes.shape[1] * np.log2(codebooks.shape[1]) / 8 + codebooks.nbytes / len(codes)
    normal = torch.nn.functional.normalize
    budget = methods.Budget(params.evaluate.beams, params.evaluate.candidates)
    tuned_encoder = tokenizer.encoder or pretrained

    def tuned(images: Tensor) -> Tensor:
        return tokenizer.adapt(tuned_encoder(images)[0])

    shared = params.retriever.encoder == "tokenizer" and not params.retriever.tune_encoder
    models, index = (retriever, None if shared else tuned), (prefixes, embeddings)
    return pretrained, {
        "scan_pretrained": methods.exact(
            lambda images: pretrained(images)[0],
            normal(features, dim=-1).to(device),
            4 * features.shape[1],
        ),
        "scan_tuned": methods.exact(tuned, embeddings, 4 * embeddings.shape[1]),
        "scan_codes": methods.exact(tuned, normal(rebuilt, dim=-1).to(device), code_bytes),
        "generative": methods.generative(models, index, budget, rank.by_code, machine),
        "generative_reranked": methods.generative(models, index, budget, rank.by_cosine, machine),
    }


@torch.inference_mode()
def ask(
    method: Method, images: np.ndarray, k: int, run_: tuple[int, Machine], title: str
) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
    """All queries (Q, C, H, H) through a method: ids (Q, k), scores (Q, k), and the median
    milliseconds a query of the search alone and with encoding (decoding the file is not in it).

    ``run_`` = (batch size, machine). The first batch is asked twice: its first time does not count.
    """
    size, machine = run_
    ids, scores, searching, encoding = [], [], [], []
    batches = list(in_order(len(images), size))
    bar = tqdm(batches[:1] + batches, title, unit="batch", leave=False, disable=None)
    for i, (rows, new) in enumerate(bar):
        batch = torch.from_numpy(images[rows.numpy()]).to(machine.device)
        started = _now(machine)
        with machine.precision():
            encoded = tuple(part.float() for part in method.encode(batch))
        encoded_at = _now(machine)
        result = method.search(encoded, k)
        searched_at = _now(machine)
        if i:
            ids.append(result.ids[:new].cpu().numpy())
            scores.append(result.scores[:new].cpu().numpy())
            encoding.append(1000 * (encoded_at - started) / size)
            searching.append(1000 * (searched_at - encoded_at) / size)
    search_ms, encode_ms = statistics.median(searching), statistics.median(encoding)
    times = {"search_ms": search_ms, "total_ms": search_ms + encode_ms}
    return np.concatenate(ids), np.concatenate(scores), times


def _now(machine: Machine) -> float:
    if machine.device.type == "cuda":
        torch.cuda.synchronize(machine.device)
    return time.perf_counter()


def describe(machine: Machine, batch_size: int) -> dict[str, str | int]:
    """What the times were measured on."""
    return {
        "device": str(machine.device),
        "autocast": str(machine.autocast),
        "threads": torch.get_num_threads(),
        "processor": platform.processor() or platform.machine(),
        "batch_size": batch_size,
    }
