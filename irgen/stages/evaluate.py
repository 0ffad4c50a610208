"""Every search method on the same queries: quality, and how long it takes on this machine."""

import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import polars as pl
import torch

from irgen.checkpoints import tensor_file
from irgen.checkpoints.identifiers import Identified, load_identified
from irgen.checkpoints.models import assemble
from irgen.checkpoints.weights import create_encoder
from irgen.encoding.encode import Encoding, decode_pixels, open_encoding
from irgen.encoding.query_features import encode_queries
from irgen.evaluation import answers, methods, runs
from irgen.evaluation.measuring import TIMED, EvalConfig, describe, measure, read_questions
from irgen.evaluation.methods import Method
from irgen.files import digest, file_digest
from irgen.index.index import Index
from irgen.models import quantizer
from irgen.models.encoder import ImageEncoder
from irgen.models.tokenizer import class_numbers
from irgen.params import Params
from irgen.search import trie
from irgen.search.engine import Options
from irgen.search.label_scorer import LabelScorer
from irgen.search.snapshot import Snapshot
from irgen.workspace import Workspace


def run(params: Params, workspace: Workspace, log: Callable) -> dict[str, float]:
    """Writes ``data/evaluate/`` (see ``measuring.measure``); and, beside DVC's outputs since it
    differs from machine to machine, ``reports/latency.json``.

    Of codes that are not the tokenizer's there is no index, and nothing to rebuild embeddings from:
    ``index`` and ``scan_codes`` are left out; so is ``scan_labels`` where the tokenizer was taught
    clusters. Without the trie the generative methods have
    ``invalid``, the share of written identifiers that do not exist.
    """
    encoding, cutoffs = open_encoding(params.compute, workspace), params.evaluate.cutoffs
    questions = read_questions(workspace, max(cutoffs))
    identified = load_identified(workspace.existing("identifiers", "database"))
    asked, labels = questions.queries["sha256"].to_list(), questions.database["label"]
    pretrained = create_encoder(params.encoder, params.seed).eval().to(encoding.machine.device)
    index = open_index(params, workspace, encoding)
    copies = runs.search_depth(0, *questions.hashes)
    about = (asked, labels, copies)
    compared = build_methods(params, workspace, identified, pretrained, about, encoding, index)
    size = params.evaluate.batch_size
    exam = EvalConfig(
        questions=questions,
        cutoffs=cutoffs,
        batch_size=size,
        machine=encoding.machine,
        images=lambda: decode_pixels(pretrained, asked[: TIMED * size], encoding),
        nearest=compared["scan_pretrained"],
        timings=timings_of(params, workspace, describe(encoding.machine, size)),
    )
    places = workspace.stage("evaluate"), workspace.reports / "latency.json"
    found = measure(compared, exam, identified.codes.numpy(), *places)
    if index is not None:
        answers.ask_ahead(index, workspace, cutoffs, params.compute)
    return found


def timings_of(params: Params, workspace: Workspace, machine: Mapping[str, str | int]) -> Path:
    """Where the times of these encoders are kept: by their weights, this code and this machine,
    whatever there is to be searched. An update leaves all of these as they were."""
    weights = [
        file_digest(workspace.existing(name, f"{name}.safetensors"))
        for name in ("tokenizer", "retriever")
    ]
    about = (platform.node(), torch.__version__, machine, asdict(params.encoder), params.seed)
    key = digest(tensor_file.source_digest(), weights, *about)[:16]
    return workspace.cache / "timings" / f"{key}.json"


def open_index(params: Params, workspace: Workspace, encoding: Encoding) -> Index | None:
    """The index that was made; None of codes that are not the tokenizer's."""
    if params.identifiers.rule != "semantic":
        return None
    machine = encoding.machine
    device, precision = str(machine.device), machine.decoder
    return Index.open(workspace.existing("index"), device=device, precision=precision)


def build_methods(
    params: Params,
    workspace: Workspace,
    identified: Identified,
    pretrained: ImageEncoder,
    about: tuple[list[str], pl.Series, int],
    encoding: Encoding,
    index: Index | None,
) -> dict[str, Method]:
    """The methods by name, in order. ``about`` = (the queries' hashes: those that these models have
    encoded before are not encoded again; the labels of the database; how often a query is there, at
    most). ``index``: None of codes that are not the tokenizer's."""
    machine, (asked, labels, copies) = encoding.machine, about
    device = machine.device
    models = assemble(
        workspace.existing("tokenizer", "tokenizer.safetensors"),
        workspace.existing("retriever", "retriever.safetensors"),
        pretrained,
    ).to(device)
    arrays, _ = tensor_file.load(workspace.existing("trie", "trie.safetensors"))
    codes, embeddings = identified.codes.to(device), identified.embeddings.to(device)
    codebooks = models.tokenizer.codebooks
    prefixes = trie.from_tensors(arrays).to(device)
    database = Snapshot.fixed(prefixes, codes, embeddings, codebooks)
    by_cosine = Options(
        beams=params.evaluate.beams,
        candidates=params.evaluate.candidates,
        rerank_weight=params.evaluate.rerank_weight,
        rerank_signal=params.evaluate.rerank_signal,
        order_by=params.evaluate.order_by,
        fresh_beams=0,
        trie=params.evaluate.trie,
    )
    by_code = replace(by_cosine, rerank=False)
    known = encode_queries(models, asked, encoding)
    by_embedding = methods.vectors(models.embed, known.embedding.to(device))
    by_models = methods.reads(models, known)
    told: dict[str, float] = {}
    if not params.evaluate.trie:
        batch = (len(asked), params.evaluate.batch_size, machine)
        told["invalid"] = methods.invalid(models, by_models, database, by_code, batch)
    found = {
        "scan_pretrained": methods.by_features(pretrained, workspace, asked, encoding),
        "scan_tuned": methods.exact(by_embedding, embeddings, 4 * embeddings.shape[1]),
    }
    if params.tokenizer.labels == "given":
        numbers = class_numbers(labels, models.labels).to(device)
        bytes_per_image = 4.0 * (embeddings.shape[1] + 1)
        classify = models.tokenizer.classify
        found["scan_labels"] = methods.classified(
            by_embedding, embeddings, numbers, classify, bytes_per_image
        )
    if index is not None:
        rebuilt = quantizer.decode(codes, codebooks)[:, -1]  # (N, D)
        bits = codes.shape[1] * np.log2(codebooks.shape[1])
        code_bytes = bits / 8 + codebooks.nbytes / len(codes)
        unit = torch.nn.functional.normalize(rebuilt, dim=-1)
        found["scan_codes"] = methods.exact(by_embedding, unit, code_bytes)
    label_scorer = None if index is None else LabelScorer.build(models.tokenizer)
    for name, options in (("generative", by_code), ("generative_reranked", by_cosine)):
        method = methods.generative(models, by_models, database, options, machine, label_scorer)
        found[name] = replace(method, about=told)
    if index is not None:
        found["index"] = methods.served(index, by_models, identified.ids, copies)  # same networks
    return found
