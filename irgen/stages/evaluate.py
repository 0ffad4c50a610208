"""Every search method on the same queries: quality, and how long it takes on this machine."""

import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
import torch
from tqdm import tqdm

from irgen.artifacts.identifiers import Identified, load_identified
from irgen.artifacts.models import assemble
from irgen.artifacts.readings import readings
from irgen.catalog.table import read_table
from irgen.compute import Machine
from irgen.encoding import Encoding, open_encoding, pixels, summaries
from irgen.evaluation import methods, metrics, runs
from irgen.evaluation.methods import Encode, Method
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
TIMED = 2  # batches whose times count
CURVES = {"method": pl.String, "k": pl.Int64, "precision": pl.Float64}


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
    outputs since it differs from machine to machine, ``reports/latency.json``.

    Of codes that are not the tokenizer's there is no index, and nothing to rebuild embeddings from:
    ``index`` and ``scan_codes`` are left out. Without the trie the generative methods have
    ``invalid``, the share of written identifiers that do not exist. Where no query has a label,
    nothing that needs one is there, and precision.csv is empty; ``agreement/k``, the share of the k
    nearest by pretrained features that are among the first k, is told instead.
    """
    encoding, settings = open_encoding(params.compute, workspace), params.evaluate
    questions = read_questions(workspace, max(settings.cutoffs))
    identified = load_identified(workspace.existing("identifiers", "database"))
    asked = questions.queries["sha256"].to_list()
    pretrained = create_encoder(params.encoder, params.seed).eval().to(encoding.machine.device)
    compared = build_methods(params, workspace, identified, pretrained, asked, encoding)
    shown_to = pixels(pretrained, asked[: TIMED * settings.batch_size], encoding)
    encoders = [method.encoder.encode for method in compared.values()]
    encode_ms = time_encoders(encoders, shown_to, settings.batch_size, encoding.machine)
    hashes = questions.queries["sha256"], questions.database["sha256"]
    k, shown = runs.search_depth(questions.depth, *hashes), max(settings.cutoffs)
    found: dict[str, Mapping[str, float]] = {"queries": metrics.count_queries(questions.positives)}
    times, curves, folder = {}, [], workspace.stage("evaluate")
    labelled = questions.queries["label"].null_count() < len(questions.queries)
    nearest = np.empty((len(asked), 0), np.int64)
    for name, method in compared.items():
        batch = (settings.batch_size, encoding.machine)
        ids, scores, search_ms = ask(method, len(asked), (k, shown), batch, name)
        total_ms = search_ms + encode_ms[method.encoder.encode]
        times[name] = {"search_ms": search_ms, "total_ms": total_ms}
        ids, scores, hits = questions.answered(ids, scores)
        if labelled:
            quality = metrics.summarise(hits, questions.positives, settings.cutoffs)
            curve = metrics.precision_curve(hits, questions.positives, shown)
            points = enumerate(curve, start=1)
            curves += [{"method": name, "k": i, "precision": p} for i, p in points]
        else:
            nearest = ids if name == "scan_pretrained" else nearest
            quality = metrics.agreement(ids, nearest, settings.cutoffs)
        found[name] = quality | dict(method.about) | {"bytes_per_image": method.bytes_per_image}
        top = (ids[:, :shown], scores[:, :shown], hits[:, :shown])
        with atomic(folder / "runs" / f"{name}.parquet") as temporary:
            runs.to_table(*top, identified.codes.numpy()).write_parquet(temporary)
    with atomic(folder / "precision.csv") as temporary:
        pl.DataFrame(curves, schema=CURVES).write_csv(temporary)
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
    params: Params,
    workspace: Workspace,
    identified: Identified,
    pretrained: ImageEncoder,
    asked: list[str],
    encoding: Encoding,
) -> dict[str, Method]:
    """The methods by name, in order. ``asked``: the queries' hashes; those that these models have
    encoded before are not encoded again."""
    machine = encoding.machine
    device, normal = machine.device, torch.nn.functional.normalize
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
    prefixes = trie.from_tensors(arrays).to(device)
    database = Snapshot.fixed(prefixes, codes, embeddings, codebooks)
    by_cosine = Options(
        beams=params.evaluate.beams,
        candidates=params.evaluate.candidates,
        fresh_beams=0,
        trie=params.evaluate.trie,
    )
    by_code = replace(by_cosine, rerank=False)
    known = readings(models, asked, encoding)
    plain = torch.from_numpy(summaries(pretrained, asked, encoding)).to(device)
    by_summary = methods.vectors(lambda images: pretrained(images)[0], plain)
    by_embedding = methods.vectors(models.embed, known.embedding.to(device))
    by_models = methods.reads(models, known)
    about: dict[str, float] = {}
    if not params.evaluate.trie:
        batch = (len(asked), params.evaluate.batch_size, machine)
        about["invalid"] = methods.invalid(models, by_models, database, by_code, batch)
    found = {
        "scan_pretrained": methods.exact(
            by_summary,
            normal(features, dim=-1).to(device),
            4 * features.shape[1],
        ),
        "scan_tuned": methods.exact(by_embedding, embeddings, 4 * embeddings.shape[1]),
    }
    semantic = params.identifiers.rule == "semantic"
    if semantic:
        rebuilt = quantizer.decode(codes, codebooks)[:, -1]  # (N, D)
        bits = codes.shape[1] * np.log2(codebooks.shape[1])
        code_bytes = bits / 8 + codebooks.nbytes / len(codes)
        found["scan_codes"] = methods.exact(by_embedding, normal(rebuilt, dim=-1), code_bytes)
    for name, options in (("generative", by_code), ("generative_reranked", by_cosine)):
        method = methods.generative(models, by_models, database, options, machine)
        found[name] = replace(method, about=about)
    if semantic:
        folder = workspace.existing("index")
        index = Index.open(folder, device=str(device), precision=machine.decoder)
        own = readings(index.models, asked, encoding)  # by the same networks, so in the same time
        by_index = replace(by_models, known=methods.reads(index.models, own).known)
        found["index"] = methods.served(index, by_index, identified.ids)
    return found


@torch.inference_mode()
def time_encoders(
    encoders: Iterable[Encode], images: np.ndarray, size: int, machine: Machine
) -> dict[Encode, float]:
    """The median milliseconds a query that each encoder takes, over the first TIMED batches of
    ``images`` (Q, C, H, H); decoding the file is not in it. The first time does not count."""
    found = {}
    batches = [rows for rows, _ in in_order(len(images), size)][:TIMED]
    for encode in dict.fromkeys(encoders):
        times = []
        for rows in [batches[0], *batches]:
            asked = torch.from_numpy(images[rows.numpy()]).to(machine.device)
            started = _now(machine)
            with machine.precision():
                encode(asked)
            times.append(1000 * (_now(machine) - started) / size)
        found[encode] = statistics.median(times[1:])
    return found


@torch.inference_mode()
def ask(
    method: Method, queries: int, k: tuple[int, int], batch: tuple[int, Machine], title: str
) -> tuple[np.ndarray, np.ndarray, float]:
    """All queries through a method: ids (Q, k), scores (Q, k), and the median milliseconds a query
    of the search alone, over the first TIMED batches.

    ``k`` = (results to judge, results that are timed): a deep list is for map@R alone. ``batch`` =
    (its size, machine). The first batch is asked once more: its first time does not count.
    """
    (deep, timed), (size, machine) = k, batch
    ids, scores, times = [], [], []
    batches = in_order(queries, size)
    for i, (rows, new) in enumerate(tqdm(batches, title, unit="batch", leave=False, disable=None)):
        encoded = method.encoder.known(rows)
        if i == 0:
            method.search(encoded, timed)
        if i < TIMED:
            started = _now(machine)
            method.search(encoded, timed)
            times.append(1000 * (_now(machine) - started) / size)
        result = method.search(encoded, deep)
        ids.append(result.ids[:new].cpu().numpy())
        scores.append(result.scores[:new].cpu().numpy())
    return np.concatenate(ids), np.concatenate(scores), statistics.median(times)


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
