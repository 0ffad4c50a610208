"""Measure the methods that the paper compares with, on the same queries: approximate search of the
tuned embeddings, and brute-force search of descriptors trained by ranking losses.

Time: queries × N for the descriptors, of at most ``evaluate.queries`` queries; building an
approximate index takes N log N or more. Methods are built one after the other.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from irgen.catalog.table import read_table
from irgen.checkpoints.identifiers import ImageCodes, load_codes
from irgen.checkpoints.models import assemble
from irgen.checkpoints.weights import create_encoder
from irgen.encoding.batches import EncodedViews, LabelledImages
from irgen.encoding.encode import (
    Encoding,
    decode_pixels,
    open_encoding,
    stream_batches,
)
from irgen.encoding.query_features import encode_queries
from irgen.encoding.training_images import load_training_images
from irgen.evaluation import ann, methods
from irgen.evaluation.latency import TIMED_BATCHES
from irgen.evaluation.measure import EvalConfig, measure_methods
from irgen.evaluation.methods import Method
from irgen.evaluation.query_set import QuerySet, read_query_set
from irgen.files.workspace import Workspace
from irgen.models.descriptors import DescriptorModel
from irgen.models.encoder import ImageEncoder
from irgen.models.tokenizer import class_numbers
from irgen.params import Params
from irgen.params.strict import flatten
from irgen.training import descriptors, ranking_losses
from irgen.training.baselines import list_recipes, train_baseline
from irgen.training.run import Log, TrainingRun, log_with_prefix, open_run


def run(params: Params, workspace: Workspace, log: Log) -> dict[str, float]:
    """Write ``data/baselines/`` (metrics.json, curves and runs, as ``evaluate`` does) and
    ``reports/baselines-latency.json``. Raises ExtraError if a package of the extra ``compare`` is
    missing."""
    ann.import_faiss()
    ranking_losses.load_library()
    encoding, cutoffs = open_encoding(params.compute, workspace), params.evaluate.cutoffs
    query_set = read_query_set(workspace, params.evaluate)
    sha256s = query_set.queries["sha256"].to_list()
    identified = load_codes(workspace.existing("identifiers", "database"))
    approximate = build_approximate(params, workspace, identified, sha256s, encoding)
    models, runs = train_models(params, workspace, encoding, log)
    searches = approximate | build_trained(models, query_set, encoding)
    size = params.evaluate.batch_size
    pretrained = create_encoder(params.encoder, params.seed).eval().to(encoding.machine.device)
    config = EvalConfig(
        query_set=query_set,
        cutoffs=cutoffs,
        batch_size=size,
        machine=encoding.machine,
        timing_images=lambda: decode_pixels(pretrained, sha256s[: TIMED_BATCHES * size], encoding),
        build_reference=partial(
            methods.search_pretrained, pretrained, workspace, sha256s, encoding
        ),
    )
    latency_path = workspace.reports / "baselines-latency.json"
    folder, codes = workspace.stage("baselines"), identified.codes.numpy()
    metrics = measure_methods(searches, config, codes, folder, latency_path)
    for run in runs:
        run.clear()
    return metrics


def build_approximate(
    params: Params,
    workspace: Workspace,
    identified: ImageCodes,
    sha256s: list[str],
    encoding: Encoding,
) -> dict[str, Callable[[], Method]]:
    """Return what builds approximate searches of the tuned embeddings. ``sha256s``: the queries'
    hashes. If ScaNN is not installed, its nearest faiss equivalent takes its place."""
    device, settings = encoding.machine.device, params.baselines
    models = assemble(
        workspace.existing("tokenizer", "tokenizer.safetensors"),
        workspace.existing("retriever", "retriever.safetensors"),
        create_encoder(params.encoder, params.seed).eval(),
    ).to(device)
    queries = encode_queries(models, sha256s, encoding).embedding.to(device)
    encoder, database = methods.encode_as_vectors(models.embed, queries), identified.embeddings
    if ann.import_scann():
        scann = {"scann": partial(ann.scann, encoder, database, settings.scann)}
    else:
        scann = {"scann_like": partial(ann.scann_like, encoder, database, settings.scann)}
    return {
        "hnsw": partial(ann.hnsw, encoder, database, settings.hnsw),
        "ivf_pq": partial(ann.ivf_pq, encoder, database, settings.ivf_pq),
        **scann,
        "spann_like": partial(ann.spann_like, encoder, database, settings.spann),
    }


def train_models(
    params: Params, workspace: Workspace, encoding: Encoding, log: Log
) -> tuple[dict[str, DescriptorModel], list[TrainingRun]]:
    """Train descriptors on the training images. The pretrained encoder is tuned if the tokenizer's
    is. Return the models, and the runs to clear when all results are written."""
    train = read_table(workspace.existing("catalog", "train.parquet"))
    tuned = params.tokenizer.tune_encoder
    sha256s = train["sha256"].to_list()
    labels = class_numbers(train["label"], train["label"].unique().sort().to_list())
    section = replace(params.encoder, grid=0)  # a head may need all tokens
    frozen = create_encoder(section, params.seed)
    models, runs = {}, []
    for name, recipe in list_recipes(params.baselines).items():
        encoder = create_encoder(section, params.seed) if tuned else frozen
        images = load_training_images(
            encoder, sha256s, params.augment, params.seed, encoding, tuned=tuned
        )
        if isinstance(images, EncodedViews) and not recipe.tokens:
            images = images.without_tokens()
        sections = [flatten(part) for part in (section, params.augment, recipe.settings)]
        run = open_run(
            workspace.cache / "training",
            name,
            encoding.machine,
            params.seed,
            partial(log_with_prefix, log, name),
            [descriptors.VERSION, sections, tuned, train.rows()],
        )
        models[name] = train_baseline(recipe, encoder, tuned, LabelledImages(images, labels), run)
        runs.append(run)
    return models, runs


def build_trained(
    models: dict[str, DescriptorModel], query_set: QuerySet, encoding: Encoding
) -> dict[str, Callable[[], Method]]:
    """Return what builds brute-force search of each model's descriptors."""
    device = encoding.machine.device
    queries, database = (
        describe_images(models, table["sha256"].to_list(), encoding)
        for table in (query_set.queries, query_set.database)
    )
    return {
        name: partial(
            methods.brute_force,
            methods.encode_as_vectors(model, queries[name].to(device)),
            database[name].to(device),
            4 * database[name].shape[1],
        )
        for name, model in models.items()
    }


@torch.inference_mode()
def describe_images(
    models: dict[str, DescriptorModel], sha256s: list[str], encoding: Encoding
) -> dict[str, Tensor]:
    """Return each model's descriptors (N, D) of images, on the CPU. Batches are always full, so a
    descriptor does not depend on other images. Models that share an encoder share its output."""
    machine = encoding.machine
    parts: dict[str, list[Tensor]] = {name: [] for name in models}
    decoding = _encoder_of(next(iter(models.values()))).decoding
    for batch, new in stream_batches(sha256s, decoding, encoding, "descriptors"):
        images = batch.to(machine.device)
        encoded: dict[ImageEncoder, tuple[Tensor, Tensor]] = {}
        for name, model in models.items():
            encoder = _encoder_of(model)
            with machine.precision():
                if encoder not in encoded:
                    encoded[encoder] = encoder(images)
                parts[name].append(model.describe(*encoded[encoder])[:new].float().cpu())
    return {name: torch.cat(batches) for name, batches in parts.items()}


def _encoder_of(model: DescriptorModel) -> ImageEncoder:
    assert model.encoder is not None, "the model takes pixels"
    return model.encoder
