"""Trains the retriever: a query image in, the identifier of one of its neighbours out."""

from collections.abc import Callable
from copy import deepcopy

import polars as pl
import torch
from torch import Tensor

from irgen.catalog.table import read_table
from irgen.checkpoints.history import write_history
from irgen.checkpoints.identifiers import load_identified
from irgen.checkpoints.retriever import initial_query_encoder, save_retriever
from irgen.checkpoints.tensor_file import Resume
from irgen.checkpoints.tokenizer import load_tokenizer
from irgen.checkpoints.weights import create_encoder, weights_digest
from irgen.encoding.batches import EncodedViews, Pixels
from irgen.encoding.encode import decode_pixels, encode_views, open_encoding
from irgen.files import file_digest
from irgen.models.decoder import IdentifierDecoder, Shape
from irgen.models.retriever import Retriever
from irgen.models.tokenizer import adapt_all, class_numbers
from irgen.params import Params
from irgen.params.strict import flatten
from irgen.training import retriever as training
from irgen.workspace import Workspace


def run(params: Params, workspace: Workspace, log: Callable) -> dict[str, float]:
    """Writes ``data/retriever/retriever.safetensors`` and ``history.csv``. Reads training and
    validation images only. With ``tokenizer.labels: clusters`` no label is looked at, so nothing
    validates and the last epoch's average is kept."""
    settings, encoding = params.retriever, open_encoding(params.compute, workspace)
    tables = [workspace.existing("catalog", f"{role}.parquet") for role in ("train", "validation")]
    train, validation = map(read_table, tables)
    if params.tokenizer.labels == "clusters":
        validation = validation.clear()
    taught = workspace.existing("tokenizer", "tokenizer.safetensors")
    tokenizer, labels = load_tokenizer(taught)
    pretrained = create_encoder(params.encoder, params.seed)
    reader = initial_query_encoder(pretrained, tokenizer, settings.encoder)

    def images(table: pl.DataFrame) -> EncodedViews | Pixels:
        sha256s = table["sha256"].to_list()
        if settings.tune_encoder:
            read = decode_pixels(reader.encoder, sha256s, encoding)
            return Pixels(read, reader.encoder.decoding.size, params.augment)
        seen = encode_views(reader.encoder, sha256s, params.augment, params.seed, encoding)
        if reader.adapter is None:
            return seen
        flat = seen.summaries.reshape(-1, reader.encoder.width)
        adapted = adapt_all(tokenizer, flat, encoding.machine.device).numpy()
        return EncodedViews(
            adapted.reshape(*seen.summaries.shape[:2], adapted.shape[1]), seen.tokens
        )

    identified = workspace.existing("identifiers", "train")
    codes = load_identified(identified).codes
    mined = workspace.existing("pairs", "pairs.parquet")
    pairs = pl.read_parquet(mined)
    inputs = [*tables, taught, identified / "codes.parquet", mined]
    positives, offsets = neighbours(pairs, len(train))
    data = (
        training.Pairs(images(train), codes, positives, offsets),
        training.Held(
            images(validation),
            class_numbers(validation["label"], labels),
            class_numbers(train["label"], labels),
        ),
    )
    encoder = reader.encoder
    shape = Shape(
        summary_width=encoder.width if reader.adapter is None else params.tokenizer.width,
        token_width=encoder.token_width,
        token_count=encoder.token_count,
        levels=codes.shape[1],
        codebook=params.tokenizer.codebook,
    )
    torch.manual_seed(params.seed)
    decoder = IdentifierDecoder(settings, shape)
    model = Retriever(deepcopy(reader) if settings.tune_encoder else None, decoder)
    resume = Resume(
        workspace.cache / "training",
        "retriever",
        [flatten(section) for section in (params.encoder, params.augment, settings)],
        [params.seed, str(encoding.machine), params.tokenizer.labels],
        [weights_digest(params.encoder), *map(file_digest, inputs)],
    )
    history = training.train(model, data, settings, (encoding.machine, params.seed), resume, log)
    folder = workspace.stage("retriever")
    save_retriever(folder / "retriever.safetensors", model, settings)
    write_history(folder / "history.csv", history)
    resume.clear()
    return {name: value for name, value in history[-1].items() if name != "epoch"}


def neighbours(pairs: pl.DataFrame, count: int) -> tuple[Tensor, Tensor]:
    """Pairs sorted by anchor as one array of positives (A,) and offsets (``count`` + 1,) into
    it."""
    anchors = torch.from_numpy(pairs["anchor"].to_numpy().copy())
    offsets = torch.searchsorted(anchors, torch.arange(count + 1))
    return torch.from_numpy(pairs["positive"].to_numpy().copy()), offsets
