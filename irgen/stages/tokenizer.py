"""Trains the semantic tokenizer: encoder or adapter, class heads at every prefix, codebooks."""

from collections.abc import Callable

import polars as pl
import torch

from irgen.artifacts.history import write_history
from irgen.artifacts.tokenizer import save_tokenizer
from irgen.catalog.table import read_table
from irgen.encoding import open_encoding, pixels, views
from irgen.errors import CatalogError
from irgen.models.tokenizer import Tokenizer, class_numbers
from irgen.params import Params, flatten
from irgen.training import tokenizer as training
from irgen.training.batches import Pixels, Views
from irgen.training.checkpoint import Resume
from irgen.weights import create_encoder
from irgen.workspace import Workspace


def run(params: Params, workspace: Workspace, log: Callable) -> dict[str, float]:
    """Writes ``data/tokenizer/tokenizer.safetensors`` (weights and codebooks) and ``history.csv``.
    Reads training and validation images only."""
    settings, encoding = params.tokenizer, open_encoding(params.compute, workspace)
    train, validation = (
        read_table(workspace.existing("catalog", f"{role}.parquet"))
        for role in ("train", "validation")
    )
    if len(train) < settings.codebook:
        raise CatalogError(
            f"tokenizer: codebook: {settings.codebook} entries a level cannot be fitted to "
            f"{len(train)} training images; set tokenizer.codebook to {len(train)} or less, "
            "or add images"
        )
    encoder = create_encoder(params.encoder, params.seed)
    labels = train["label"].unique().sort().to_list()

    def labelled(table: pl.DataFrame) -> training.Labelled:
        sha256s = table["sha256"].to_list()
        images: Views | Pixels
        if settings.tune_encoder:
            decoded = pixels(encoder, sha256s, encoding)
            images = Pixels(decoded, encoder.decoding.size, params.augment)
        else:
            images = views(encoder, sha256s, params.augment, params.seed, encoding)
        return training.Labelled(images, class_numbers(table["label"], labels))

    data = labelled(train), labelled(validation)
    torch.manual_seed(params.seed)
    model = Tokenizer(
        settings, encoder.width, len(labels), encoder if settings.tune_encoder else None
    )
    resume = Resume(
        workspace.cache / "training",
        "tokenizer",
        [flatten(section) for section in (params.encoder, params.augment, settings)],
        [params.seed, str(encoding.machine), train.rows(), validation.rows()],
    )
    history = training.train(model, data, settings, (encoding.machine, params.seed), resume, log)
    folder = workspace.stage("tokenizer")
    save_tokenizer(folder / "tokenizer.safetensors", model, params.encoder, settings, labels)
    write_history(folder / "history.csv", history)
    resume.clear()
    return {name: value for name, value in history[-1].items() if name != "epoch"}
