"""Every search method on the same queries: quality, and how long it takes on this machine."""

import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
import torch
from tqdm import tqdm

from irgen.artifacts.identifiers import Identified, load_identified
from irgen.artifacts.models import assemble
from irgen.catalog.table import read_table
from irgen.compute import Machine
from irgen.encoding import open_encoding, pixels
from irgen.evaluation import methods, metrics, runs
from irgen.evaluation.methods import Method
from irgen.files import atomic, file_digest, read_array, write_json
from irgen.index.index import Index
from irgen.models import quantizer
from irgen.models.encoder import ImageEncoder
from irgen.params import Params
from irgen.search import trie
from irgen.search.engine import Options
from irgen.search.snapshot import Snapshot
from irgen.training import checkpoint
from irgen.training.batches import in_order
from irgen.weights import create_encoder
from irgen.workspace import Workspace

DEEPEST = 1000  # ranks; map@R of a label with more positives counts the rest as missed


@dataclass(frozen=True)
class Questions:
    """Queries and database as the catalogue has them, and how deep a result list is judged."""

    queries: pl.DataFrame
    database: pl.DataFrame
    positives: np.ndarray  # (Q,) int64, R of each query
    depth: int

    def answered(self, ids: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, ...]:
        """Results (Q, any) without the queries themselves: ids, scores and hits (Q, depth)."""
        hashes = self.queries["sha256"], self.database["sha256"]
        ids, scores = runs.without_self(ids, scores, *hashes, self.depth)
        return ids, scores, runs.relevance(ids, self.queries["label"], self.database["label"])


def run(params: Params, workspace: Workspace, log: Callable) -> dict[str, float]:
    """Writes ``data/evaluate/``: metrics.json, precision.csv and a run a method; and, beside DVC's
    outputs since it differs from machine to machine, ``reports/latency.json``."""
    encoding, settings = open_encoding(params.compute, workspace), params.evaluate
    questions = read_questions(workspace, max(settings.cutoffs))
    identified = load_identified(workspace.existing("identifiers", "database"))
    encoder, compared = build_methods(params, workspace, identified, encoding.machine)
    images = pixels(encoder, questions.queries["sha256"].to_list(), encoding)
    hashes = questions.queries["sha256"], questions.database["sha256"]
    k, shown = runs.search_depth(questions.depth, *hashes), max(settings.cutoffs)
    found: dict[str, Mapping[str, float]] = {"queries": metrics.count_queries(questions.positives)}
    times, curves, folder = {}, [], workspace.stage("evaluate")
    for name, method in compared.items():
        batch = (settings.batch_size, encoding.machine)
        ids, scores, times[name] = ask(method, images, (k, shown), batch, name)
        ids, scores, hits = questions.answered(ids, scores)
        quality = metrics.summarise(hits, questions.positives, settings.cutoffs)
        found[name] = quality | {"bytes_per_image": method.bytes_per_image}
        curve = metrics.precision_curve(hits, questions.positives, shown)
        curves += [{"method": name, "k": i, "precision": p} for i, p in enumerate(curve, start=1)]
        top = (ids[:, :shown], scores[:, :shown], hits[:, :shown])
        with atomic(folder / "runs" / f"{name}.parquet") as temporary:
            runs.to_table(*top, identified.codes.numpy()).write_parquet(temporary)
    with atomic(folder / "precision.csv") as temporary:
        pl.DataFrame(curves).write_csv(temporary)
    write_json(folder / "metrics.json", found)
    about = {
        "metrics_digest": file_digest(folder / "metrics.json"),
        "machine": describe(encoding.machine, settings.batch_size),
        "methods": times,
    }
    write_json(workspace.reports / "latency.json", about)
    return {f"{name}/{key}": value for name, row in found.items() for key, value in row.items()}


def read_questions(workspace: Workspace, at_least: int) -> Questions:
    """The catalogue's queries and database; lists are judged down to R, to ``at_least`` and at most
    to DEEPEST."""
    queries, database = (
        read_table(workspace.existing("catalog", f"{role}.parquet"))
        for role in ("queries", "database")
    )
    positives = runs.positives(
        queries["label"], queries["sha256"], database["label"], database["sha256"]
    )
    depth = max(at_least, min(int(positives.max(initial=1)), DEEPEST))
    return Questions(queries, database, positives, depth)


def build_methods(
    params: Params, workspace: Workspace, identified: Identified, machine: Machine
) -> tuple[ImageEncoder, dict[str, Method]]:
    """The encoder whose decoding all methods share, and the methods by name, in order."""
    device, normal = machine.device, torch.nn.functional.normalize
    pretrained = create_encoder(params.encoder, params.seed).eval().to(device)
    models = assemble(
        workspace.existing("tokenizer", "tokenizer.safetensors"),
        workspace.existing("retriever", "retriever.safetensors"),
        pretrained,
    ).to(device)
    arrays, _ = checkpoint.load(workspace.existing("trie", "trie.safetensors"))
    features = torch.from_numpy(
        np.array(read_array(workspace.existing("features", "database", "features.npy")))
    )
    codes, embeddings = identified.codes.to(device), identified.embeddings.to(device)
    codebooks = models.tokenizer.codebooks
    rebuilt = quantizer.decode(codes, codebooks)[:, -1]  # (N, D)
    code_bytes = codes.shape[1] * np.log2(codebooks.shape[1]) / 8 + codebooks.nbytes / len(codes)
    prefixes = trie.from_tensors(arrays).to(device)
    database = Snapshot.fixed(prefixes, codes, embeddings, codebooks)
    by_cosine = Options(
        beams=params.evaluate.beams, candidates=params.evaluate.candidates, fresh_beams=0
    )
    by_code = replace(by_cosine, rerank=False)
    folder = workspace.existing("index")
    index = Index.open(folder, device=str(device), precision=machine.decoder)
    return pretrained, {
        "scan_pretrained": methods.exact(
            lambda images: pretrained(images)[0],
            normal(features, dim=-1).to(device),
            4 * features.shape[1],
        ),
        "scan_tuned": methods.exact(models.embed, embeddings, 4 * embeddings.shape[1]),
        "scan_codes": methods.exact(models.embed, normal(rebuilt, dim=-1), code_bytes),
        "generative": methods.generative(models, database, by_code, machine),
        "generative_reranked": methods.generative(models, database, by_cosine, machine),
        "index": methods.served(index, identified.ids),
    }


@torch.inference_mode()
def ask(
    method: Method, images: np.ndarray, k: tuple[int, int], batch: tuple[int, Machine], title: str
) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
    """All queries (Q, C, H, H) through a method: ids (Q, k), scores (Q, k), and the median
    milliseconds a query of the search alone and with encoding (decoding the file is not in it).

    ``k`` = (results to judge, results that are timed): a deep list is for map@R alone. ``batch`` =
    (its size, machine). The first batch is asked twice: its first time does not count.
    """
    (deep, timed), (size, machine) = k, batch
    ids, scores, searching, encoding = [], [], [], []
    batches = list(in_order(len(images), size))
    bar = tqdm(batches[:1] + batches, title, unit="batch", leave=False, disable=None)
    for i, (rows, new) in enumerate(bar):
        asked = torch.from_numpy(images[rows.numpy()]).to(machine.device)
        started = _now(machine)
        with machine.precision():
            encoded = method.encode(asked)
        encoded_at = _now(machine)
        method.search(encoded, timed)
        searched_at = _now(machine)
        if i:
            result = method.search(encoded, deep)
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
