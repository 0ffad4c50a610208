"""Draw the folds of a cross-validation and train tokenizers, retrievers and baselines on them.

The images are the training and validation images of a catalogue. A fold holds some of them out as
queries; the models are trained on the others, which are searched.
"""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from irgen.catalog.table import read_table
from irgen.checkpoints.resume import Resume
from irgen.checkpoints.retriever import initial_query_encoder
from irgen.checkpoints.weights import create_encoder
from irgen.compute.batches import full_batches
from irgen.compute.machine import Machine
from irgen.encoding.batches import EncodedViews, LabelledImages, Pixels
from irgen.encoding.encode import (
    Encoding,
    decode_pixels,
    encode_summaries,
    open_encoding,
)
from irgen.encoding.views import encode_views
from irgen.files.workspace import Workspace
from irgen.models.decoder import IdentifierDecoder, Shape
from irgen.models.retriever import QueryEncoder, Retriever
from irgen.models.tokenizer import Tokenizer, class_numbers, embed_summaries
from irgen.params import Params
from irgen.training import retriever as retriever_training
from irgen.training import tokenizer as tokenizer_training
from irgen.training.baselines import list_recipes, train_baseline
from irgen.training.pairs import RULES
from irgen.training.run import TrainingRun

NO_ROWS = torch.empty(0).long()


@dataclass(frozen=True)
class ImageSet:
    """Hold N images: content hashes, class numbers (N,), names of the classes, their encoding, and,
    if an encoder is trained, the decoded ``pixels`` (N, C, H, H)."""

    sha256s: list[str]
    labels: Tensor
    classes: list[str]
    encoding: Encoding
    pixels: np.ndarray | None


def read_images(params: Params, folder: Path) -> ImageSet:
    """Read the training and validation images of the source, each content once."""
    workspace = Workspace(data=folder / "data", cache=folder / "cache", reports=folder / "reports")
    for name in ("download", "catalog"):
        import_module(f"irgen.stages.{name}").run(params, workspace, lambda metrics, step: None)
    paths = [workspace.existing("catalog", f"{name}.parquet") for name in ("train", "validation")]
    table = pl.concat([read_table(path) for path in paths]).unique("sha256", maintain_order=True)
    classes, sha256s = table["label"].unique().sort().to_list(), table["sha256"].to_list()
    encoding, encoder = open_encoding(params.compute, workspace), create_encoder(params.encoder, 0)
    trained = params.tokenizer.tune_encoder or params.retriever.tune_encoder
    pixels = decode_pixels(encoder, sha256s, encoding) if trained else None
    return ImageSet(sha256s, class_numbers(table["label"], classes), classes, encoding, pixels)


@dataclass(frozen=True)
class Fold:
    """Hold rows of images: those to train on, the database, and the held-out queries."""

    train: Tensor
    database: Tensor
    queries: Tensor


def assign_folds(count: int, folds: int, seed: int) -> Tensor:
    """Return the fold number of each item, (count,) int64; sizes of folds differ by at most 1."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed)) % folds


def split_images(labels: Tensor, folds: int, seed: int) -> Iterator[Fold]:
    """Yield folds of the images with class numbers (N,): each image is a query of one fold, and in
    the database that the models are trained on in the others."""
    numbers = assign_folds(len(labels), folds, seed)
    for number in range(folds):
        train = torch.nonzero(numbers != number).flatten()
        yield Fold(train, train, torch.nonzero(numbers == number).flatten())


def split_classes(labels: Tensor, folds: int, seed: int) -> Iterator[Fold]:
    """Yield folds of the classes of the images (N,): no model is trained on the held-out classes.
    Half of their images are queries, the other half joins the database."""
    numbers = assign_folds(int(labels.max()) + 1, folds, seed)[labels]
    for number in range(folds):
        train = torch.nonzero(numbers != number).flatten()
        held_out = torch.nonzero(numbers == number).flatten()
        order = torch.randperm(len(held_out), generator=torch.Generator().manual_seed(seed))
        held_out, half = held_out[order], len(held_out) // 2
        yield Fold(train, torch.cat([train, held_out[half:]]), held_out[:half])


@dataclass(frozen=True)
class TokenizedImages:
    """Hold a trained tokenizer, and of all N images their unit ``embeddings`` (N, D) and the
    ``inputs`` of a retriever. ``query_encoder``: the initial one, if the retriever trains it."""

    tokenizer: Tokenizer
    embeddings: Tensor
    inputs: EncodedViews | Pixels
    query_encoder: QueryEncoder | None = None


def select(images: Any, rows: Tensor) -> Any:
    """Return the EncodedViews or Pixels of ``rows`` (n,)."""
    if isinstance(images, Pixels):
        return replace(images, pixels=images.pixels[rows.numpy()])
    tokens = None if images.tokens is None else images.tokens[rows.numpy()]
    return EncodedViews(images.summaries[rows.numpy()], tokens)


def train_tokenizer(
    params: Params, images: ImageSet, rows: Tensor, folder: Path
) -> TokenizedImages:
    """Train a tokenizer on the images of ``rows`` (n,); return its embeddings of all images."""
    settings, encoding = params.tokenizer, images.encoding
    pretrained = create_encoder(params.encoder, params.seed)
    classes, labels = images.labels[rows].unique(return_inverse=True)
    torch.manual_seed(params.seed)
    inputs: Any
    if not settings.tune_encoder:
        model = Tokenizer(settings, pretrained.width, len(classes), None)
        views = encode_views(pretrained, images.sha256s, params.augment, 0, encoding)
        inputs = views.without_tokens()
    else:
        assert images.pixels is not None, "training an encoder takes pixels"
        model = Tokenizer(settings, pretrained.width, len(classes), deepcopy(pretrained))
        inputs = Pixels(images.pixels, pretrained.decoding.size, params.augment)
    run = start_run(folder, "tokenizer", encoding.machine, params.seed)
    training = LabelledImages(select(inputs, rows), labels)
    validation = LabelledImages(select(inputs, NO_ROWS), NO_ROWS)
    tokenizer_training.train(model, training, validation, settings, run)
    run.clear()
    if model.encoder is not None:  # no other model has this encoder: cache its views apart
        encoding = replace(encoding, cache=folder)
        views = encode_views(model.encoder, images.sha256s, params.augment, 0, encoding)
    flat = embed_summaries(
        model, views.summaries.reshape(-1, views.summaries.shape[2]), encoding.machine.device
    )
    adapted = flat.view(*views.summaries.shape[:2], -1)  # (N, V, D)
    tokenized = TokenizedImages(
        model.cpu(), adapted[:, 0].contiguous(), EncodedViews(adapted.numpy(), views.tokens)
    )
    if params.retriever.tune_encoder:
        assert images.pixels is not None, "training an encoder takes pixels"
        query_encoder = initial_query_encoder(pretrained, deepcopy(model), params.retriever.encoder)
        pixels = Pixels(images.pixels, pretrained.decoding.size, params.augment)
        return replace(tokenized, inputs=pixels, query_encoder=query_encoder)
    if params.retriever.encoder == "pretrained":
        views = encode_views(pretrained, images.sha256s, params.augment, 0, encoding)
        return replace(tokenized, inputs=views)
    return tokenized


def start_run(folder: Path, name: str, machine: Machine, seed: int) -> TrainingRun:
    """Return a training run that stores its state below ``folder`` and drops its metrics."""
    resume = Resume(folder, name)
    return TrainingRun(machine=machine, seed=seed, log=lambda row, step: None, resume=resume)


def train_retriever(
    params: Params, images: ImageSet, rows: Tensor, tokenized: TokenizedImages, folder: Path
) -> Retriever:
    """Train a retriever on the images of ``rows`` (n,). Its weights are the average of the last
    step, because there are no validation images."""
    settings, machine = params.retriever, images.encoding.machine
    pretrained = create_encoder(params.encoder, params.seed)
    features = encode_summaries(pretrained, [images.sha256s[row] for row in rows], images.encoding)
    mined = RULES[params.pairs.rule](
        torch.from_numpy(features), images.labels[rows], params.pairs.neighbours, params.seed
    )
    anchors, ranks = torch.nonzero(mined.rows >= 0, as_tuple=True)
    positives = retriever_training.group_positives(anchors, mined.rows[anchors, ranks], len(rows))
    codes = tokenized.tokenizer.tokenize(tokenized.embeddings[rows])
    query_encoder = tokenized.query_encoder or initial_query_encoder(
        pretrained, tokenized.tokenizer, settings.encoder
    )
    width, encoder = params.tokenizer.width, query_encoder.encoder
    shape = Shape(
        summary_width=encoder.width if query_encoder.adapter is None else width,
        token_width=encoder.token_width,
        token_count=encoder.token_count,
        levels=codes.shape[1],
        codebook=params.tokenizer.codebook,
    )
    torch.manual_seed(params.seed)
    model = Retriever(tokenized.query_encoder, IdentifierDecoder(settings, shape))
    training = retriever_training.Pairs(select(tokenized.inputs, rows), codes, *positives)
    no_images = LabelledImages(select(tokenized.inputs, NO_ROWS), NO_ROWS)
    validation = retriever_training.Validation(no_images, images.labels[rows])
    run = start_run(folder, "retriever", machine, params.seed)
    retriever_training.train(model, training, validation, settings, run)
    run.clear()
    return model


@torch.inference_mode()
def predict_first_codes(
    model: Retriever, inputs: EncodedViews | Pixels, machine: Machine
) -> Tensor:
    """Return the log-probabilities (Q, L) of the first codes of the images."""
    log_probs, levels = [], model.decoder.shape.levels
    for rows, new in full_batches(len(inputs), 64):
        parts = [part.to(machine.device) for part in inputs.plain(rows)]
        blank = torch.zeros(len(rows), levels, dtype=torch.int64)
        with machine.precision():
            logits = model.eval()(parts, blank.to(machine.device))[:, 0]
        log_probs.append(logits[:new].float().log_softmax(-1).cpu())
    return torch.cat(log_probs)


def encode_with_baseline(
    params: Params, images: ImageSet, rows: Tensor, folder: Path, name: str
) -> Tensor:
    """Train a baseline on the images of ``rows`` (n,); return unit vectors (N, D) of all images."""
    recipe, machine = list_recipes(params.baselines)[name], images.encoding.machine
    tuned = params.tokenizer.tune_encoder
    encoder = create_encoder(params.encoder, params.seed)
    inputs: Any
    if tuned:
        assert images.pixels is not None, "training an encoder takes pixels"
        inputs = Pixels(images.pixels, encoder.decoding.size, params.augment)
    else:
        inputs = encode_views(encoder, images.sha256s, params.augment, 0, images.encoding)
        inputs = inputs if recipe.tokens else inputs.without_tokens()
    _, labels = images.labels[rows].unique(return_inverse=True)
    run = start_run(folder, name, machine, params.seed)
    training = LabelledImages(select(inputs, rows), labels)
    model = train_baseline(recipe, encoder, tuned, training, run)
    run.clear()
    vectors = []
    with torch.inference_mode(), machine.precision():
        for batch, new in full_batches(len(inputs), 64):
            parts = [part.to(machine.device) for part in inputs.plain(batch)]
            outputs = model(*parts) if tuned else model.describe(*parts)
            vectors.append(outputs[:new].float().cpu())
    return torch.cat(vectors)
