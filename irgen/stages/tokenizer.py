"""Trains the semantic tokenizer: encoder or adapter, class heads at every prefix, codebooks."""

from collections.abc import Callable
from pathlib import Path

import polars as pl
import torch
from torch import Tensor
from torch.nn import functional as F

from irgen.catalog.table import read_table
from irgen.checkpoints.history import write_history
from irgen.checkpoints.tensor_file import Resume
from irgen.checkpoints.tokenizer import save_tokenizer
from irgen.checkpoints.weights import create_encoder, weights_digest
from irgen.encoding.batches import EncodedViews, Pixels
from irgen.encoding.encode import decode_pixels, encode_views, open_encoding
from irgen.errors import CatalogError
from irgen.files import file_digest, read_array
from irgen.models.clusters import cluster
from irgen.models.tokenizer import Tokenizer, class_numbers
from irgen.params import Params
from irgen.params import Tokenizer as Settings
from irgen.params.strict import flatten
from irgen.training import tokenizer as training
from irgen.workspace import Workspace


def run(params: Params, workspace: Workspace, log: Callable) -> dict[str, float]:
    """Writes ``data/tokenizer/tokenizer.safetensors`` (weights and codebooks) and ``history.csv``.
    Reads training and validation images only, and with ``labels: clusters`` none of their labels:
    classes are at first clusters of the pretrained features. Raises CatalogError for fewer training
    images than entries or clusters, and for one without a label where labels teach."""
    settings, encoding = params.tokenizer, open_encoding(params.compute, workspace)
    tables = [workspace.existing("catalog", f"{role}.parquet") for role in ("train", "validation")]
    train, validation = map(read_table, tables)
    features = []  # that clusters are made of
    if len(train) < settings.codebook:
        raise CatalogError(
            f"tokenizer: codebook: {settings.codebook} entries a level cannot be fitted to "
            f"{len(train)} training images; set tokenizer.codebook to {len(train)} or less, "
            "or add images"
        )
    encoder = create_encoder(params.encoder, params.seed)
    labels = classes(train, settings)
    if settings.labels == "given":
        numbers = [class_numbers(table["label"], labels) for table in (train, validation)]
    else:
        validation = validation.clear()
        features = [workspace.existing("features", "train", "features.npy")]
        numbers = [first_clusters(settings, params.seed, *features), torch.empty(0).long()]

    def labelled(table: pl.DataFrame, own: Tensor) -> training.Labelled:
        sha256s = table["sha256"].to_list()
        images: EncodedViews | Pixels
        if settings.tune_encoder:
            decoded = decode_pixels(encoder, sha256s, encoding)
            images = Pixels(decoded, encoder.decoding.size, params.augment)
        else:
            seen = encode_views(encoder, sha256s, params.augment, params.seed, encoding)
            images = seen.without_tokens()
        return training.Labelled(images, own)

    data = labelled(train, numbers[0]), labelled(validation, numbers[1])
    torch.manual_seed(params.seed)
    model = Tokenizer(
        settings, encoder.width, len(labels), encoder if settings.tune_encoder else None
    )
    resume = Resume(
        workspace.cache / "training",
        "tokenizer",
        [flatten(section) for section in (params.encoder, params.augment, settings)],
        [params.seed, str(encoding.machine), weights_digest(params.encoder)],
        [file_digest(path) for path in (*tables, *features)],
    )
    history = training.train(model, data, settings, (encoding.machine, params.seed), resume, log)
    folder = workspace.stage("tokenizer")
    save_tokenizer(folder / "tokenizer.safetensors", model, params.encoder, settings, labels)
    write_history(folder / "history.csv", history)
    resume.clear()
    return {name: value for name, value in history[-1].items() if name != "epoch"}


def classes(train: pl.DataFrame, settings: Settings) -> list[str]:
    """The names of the classes that teach: the labels of training images, or numbers of clusters.
    Raises CatalogError if there are no labels, or too few images for the clusters."""
    if settings.labels == "given":
        if missing := train["label"].null_count():
            raise CatalogError(
                f"tokenizer: labels: given, but {missing:,} training images have no label; give "
                "the source labels, or set tokenizer.labels to clusters"
            )
        return train["label"].unique().sort().to_list()
    if len(train) < settings.clusters:
        raise CatalogError(
            f"tokenizer: clusters: {settings.clusters} cannot be made of {len(train)} training "
            f"images; set tokenizer.clusters to {len(train)} or less, or add images"
        )
    return [str(number) for number in range(settings.clusters)]


def first_clusters(settings: Settings, seed: int, path: Path) -> Tensor:
    """The clusters (N,) of training images by the cosine of their pretrained features."""
    features = F.normalize(torch.from_numpy(read_array(path)), dim=-1)
    return cluster(features, settings.clusters, settings.kmeans_iterations, seed)
