"""Every search method on the same queries: quality, and how long it takes on this machine."""

import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

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
from irgen.evaluation import answers, methods, metrics, runs
from irgen.evaluation.methods import Encode, Method
from irgen.files import atomic, digest, file_digest, read_array, read_json, write_json
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
    asked = questions.queries["sha256"].to_list()
    pretrained = create_encoder(params.encoder, params.seed).eval().to(encoding.machine.device)
    compared = build_methods(params, workspace, identified, pretrained, asked, encoding)
    encoders = list(dict.fromkeys(method.encoder.encode for method in compared.values()))

    def time_them() -> list[float]:
        shown_to = pixels(pretrained, asked[: TIMED * settings.batch_size], encoding)
        return time_encoders(encoders, shown_to, settings.batch_size, encoding.machine)

    machine = describe(encoding.machine, settings.batch_size)
    timings = timings_of(params, workspace, machine)
    encode_ms = dict(zip(encoders, known_or(timings, time_them), strict=True))
    hashes = questions.queries["sha256"], questions.database["sha256"]
    k, shown = runs.search_depth(questions.depth, *hashes), max(settings.cutoffs)
    found: dict[str, Mapping[str, float]] = {"queries": metrics.count_queries(questions.positives)}
    times, curves, folder = {}, [], workspace.stage("evaluate")
    for name, method in compared.items():
        batch = (settings.batch_size, encoding.machine)
        ids, scores, search_ms = ask(method, len(asked), (k, shown), batch, name)
        total_ms = search_ms + encode_ms[method.encoder.encode]
        times[name] = {"search_ms": search_ms, "total_ms": total_ms}
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
        "machine": machine,
        "methods": times,
    }
    write_json(workspace.reports / "latency.json", about)
    answers.ask_ahead(workspace, settings.cutoffs, params.compute)
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
    rebuilt = quantizer.decode(codes, codebooks)[:, -1]  # (N, D)
    code_bytes = codes.shape[1] * np.log2(codebooks.shape[1]) / 8 + codebooks.nbytes / len(codes)
    prefixes = trie.from_tensors(arrays).to(device)
    database = Snapshot.fixed(prefixes, codes, embeddings, codebooks)
    by_cosine = Options(
        beams=params.evaluate.beams,
        candidates=params.evaluate.candidates,
        fuse=params.evaluate.fuse,
        fresh_beams=0,
    )
    by_code = replace(by_cosine, rerank=False)
    folder = workspace.existing("index")
    index = Index.open(folder, device=str(device), precision=machine.decoder)
    known = readings(models, asked, encoding)
    plain = torch.from_numpy(summaries(pretrained, asked, encoding)).to(device)
    by_summary = methods.vectors(lambda images: pretrained(images)[0], plain)
    by_embedding = methods.vectors(models.embed, known.embedding.to(device))
    by_models = methods.reads(models, known)
    own = readings(index.models, asked, encoding)  # by the same networks, so in the same time
    by_index = replace(by_models, known=methods.reads(index.models, own).known)
    return {
        "scan_pretrained": methods.exact(
            by_summary,
            normal(features, dim=-1).to(device),
            4 * features.shape[1],
        ),
        "scan_tuned": methods.exact(by_embedding, embeddings, 4 * embeddings.shape[1]),
        "scan_codes": methods.exact(by_embedding, normal(rebuilt, dim=-1), code_bytes),
        "generative": methods.generative(models, by_models, database, by_code, machine),
        "generative_reranked": methods.generative(models, by_models, database, by_cosine, machine),
        "index": methods.served(index, by_index, identified.ids),
    }


@torch.inference_mode()
def time_encoders(
    encoders: Iterable[Encode], images: np.ndarray, size: int, machine: Machine
) -> list[float]:
    """The median milliseconds a query that each encoder takes, over the first TIMED batches of
    ``images`` (Q, C, H, H); decoding the file is not in it. The first time does not count."""
    found = []
    batches = [rows for rows, _ in in_order(len(images), size)][:TIMED]
    for encode in encoders:
        times = []
        for rows in [batches[0], *batches]:
            asked = torch.from_numpy(images[rows.numpy()]).to(machine.device)
            started = _now(machine)
            with machine.precision():
                encode(asked)
            times.append(1000 * (_now(machine) - started) / size)
        found.append(statistics.median(times[1:]))
    return found


def timings_of(params: Params, workspace: Workspace, machine: Mapping[str, str | int]) -> Path:
    """Where the times of these encoders are kept: by their weights, this code and this machine,
    whatever there is to be searched. An update leaves all of these as they were."""
    weights = [
        file_digest(workspace.existing(name, f"{name}.safetensors"))
        for name in ("tokenizer", "retriever")
    ]
    about = (platform.node(), torch.__version__, machine, asdict(params.encoder), params.seed)
    key = digest(checkpoint.source_digest(), weights, *about)[:16]
    return workspace.cache / "timings" / f"{key}.json"


def known_or(place: Path, measure: Callable[[], list[float]]) -> list[float]:
    """What was measured before and kept at ``place``, or is measured now and kept there."""
    if not place.exists():
        write_json(place, measure())
    return read_json(place)


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
