"""Train the retriever: from a query image, predict the codes of one of its neighbours.

Time: in proportion to the steps, and to at most MOST_VALIDATED searches after each round; reading
codes and pairs takes N · neighbours. Views of a frozen encoder are encoded once an image.
"""

from collections.abc import Callable
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import replace

import polars as pl
import torch
from torch import Tensor
from torch.nn import functional as F

from irgen.catalog.table import TEXTS, read_table
from irgen.checkpoints.fingerprint import weights_digest
from irgen.checkpoints.history import write_history
from irgen.checkpoints.identifiers import load_codes
from irgen.checkpoints.retriever import initial_query_encoder, save_retriever
from irgen.checkpoints.text import TEXT_ENCODER, load_text_encoder
from irgen.checkpoints.tokenizer import load_tokenizer
from irgen.checkpoints.weights import create_encoder
from irgen.compute.cluster import connect
from irgen.compute.workers import run_workers
from irgen.encoding.batches import EncodedViews, LabelledImages, Pixels
from irgen.encoding.encode import open_encoding
from irgen.encoding.texts import ImageTexts
from irgen.encoding.training_images import load_training_images
from irgen.encoding.views import encode_views
from irgen.evaluation.sample import draw_sample
from irgen.files.digests import file_digest
from irgen.files.sealed import read_array, read_parquet
from irgen.files.workspace import Workspace
from irgen.models.decoder import IdentifierDecoder, Shape
from irgen.models.retriever import Retriever
from irgen.models.tokenizer import class_numbers, embed_summaries
from irgen.params import Params
from irgen.params.strict import flatten
from irgen.search.brute_force import brute_force_search
from irgen.training import retriever as training
from irgen.training.run import open_run, summarize
from irgen.training.word_queries import WordQueries

MOST_VALIDATED = 3000  # validation images: after each round all of them are searched for
VALIDATED = ("train", "validation")  # roles: validation images query the training images


def run(params: Params, workspace: Workspace, log: Callable) -> dict[str, float]:
    """Write ``data/retriever/retriever.safetensors`` and ``history.csv``.

    Reads training and validation images only; of more than MOST_VALIDATED validation images a
    sample. With ``tokenizer.labels: clusters`` no label is read: agreement with the nearest by
    pretrained features validates.
    """
    with ExitStack() as stack:
        if params.compute.engine == "ray":
            stack.enter_context(connect(params.compute))
            encode_ahead(params, workspace)
        return run_workers(train_retriever, (params, workspace), params.compute, log)


def encode_ahead(params: Params, workspace: Workspace) -> None:
    """Encode the views of a frozen encoder with all workers of the cluster, before the processes of
    the training take these."""
    if params.retriever.tune_encoder:
        return
    encoding = open_encoding(params.compute, workspace)
    tokenizer, _ = load_tokenizer(workspace.existing("tokenizer", "tokenizer.safetensors"))
    pretrained = create_encoder(params.encoder, params.seed)
    encoder = initial_query_encoder(pretrained, tokenizer, params.retriever.encoder).encoder
    paths = (workspace.existing("catalog", f"{role}.parquet") for role in VALIDATED)
    train, validation = map(read_table, paths)
    for table in (train, validation[draw_sample(validation, MOST_VALIDATED)]):
        encode_views(encoder, table["sha256"].to_list(), params.augment, params.seed, encoding)


def train_retriever(params: Params, workspace: Workspace, log: Callable) -> dict[str, float]:
    """Train with the other processes of ``run``. The first one writes what comes of it."""
    compute = replace(params.compute, engine="local")  # what is not encoded ahead
    settings, encoding = params.retriever, open_encoding(compute, workspace)
    tables = [workspace.existing("catalog", f"{role}.parquet") for role in VALIDATED]
    train, validation = map(read_table, tables)
    sample = draw_sample(validation, MOST_VALIDATED)
    validation = validation[sample]
    paths = [workspace.existing("features", role, "features.npy") for role in VALIDATED]
    nearest = None
    if params.tokenizer.labels == "clusters":
        database, queries = (torch.from_numpy(read_array(path)) for path in paths)
        nearest = find_nearest(database, queries[sample])
    tokenizer_path = workspace.existing("tokenizer", "tokenizer.safetensors")
    codes_folder = workspace.existing("identifiers", "train")
    pairs_path = workspace.existing("pairs", "pairs.parquet")
    tokenizer, labels = load_tokenizer(tokenizer_path)
    codes, pairs = load_codes(codes_folder).codes, read_parquet(pairs_path)
    pretrained = create_encoder(params.encoder, params.seed)
    query_encoder = initial_query_encoder(pretrained, tokenizer, settings.encoder)
    encoder, adapted = query_encoder.encoder, query_encoder.adapter is not None

    def load_images(table: pl.DataFrame) -> EncodedViews | Pixels:
        images = load_training_images(
            encoder,
            table["sha256"].to_list(),
            params.augment,
            params.seed,
            encoding,
            tuned=settings.tune_encoder,
        )
        if isinstance(images, Pixels) or not adapted:
            return images
        flat = images.summaries.reshape(-1, encoder.width)  # (N · V, S)
        embeddings = embed_summaries(tokenizer, flat, encoding.machine.device).numpy()
        shape = (*images.summaries.shape[:2], embeddings.shape[1])  # (N, V, D), N may be 0
        return replace(images, summaries=embeddings.reshape(shape))

    shape = Shape(
        summary_width=params.tokenizer.width if adapted else encoder.width,
        token_width=encoder.token_width,
        token_count=encoder.token_count,
        levels=codes.shape[1],
        codebook=params.tokenizer.codebook,
    )
    torch.manual_seed(params.seed)
    decoder = IdentifierDecoder(settings, shape)
    model = Retriever(deepcopy(query_encoder) if settings.tune_encoder else None, decoder)
    anchors, positives = (
        torch.from_numpy(pairs[name].to_numpy().copy()) for name in ("anchor", "positive")
    )
    validated = LabelledImages(load_images(validation), class_numbers(validation["label"], labels))
    sections = [flatten(section) for section in (params.encoder, params.augment, settings)]
    inputs = [*tables, *paths, tokenizer_path, codes_folder / "codes.parquet", pairs_path]
    inputs += [workspace.existing("catalog", TEXTS), workspace.existing("texts", TEXT_ENCODER)]
    contents = [weights_digest(params.encoder), *map(file_digest, inputs)]
    run = open_run(
        workspace.cache / "training",
        "retriever",
        encoding.machine,
        params.seed,
        log,
        [training.VERSION, sections, params.tokenizer.labels, contents],
    )
    words = load_words(params, workspace, train["id"], codes, encoding.machine.device)
    history = training.train(
        model,
        training.Pairs(
            load_images(train), codes, *training.group_positives(anchors, positives, len(train))
        ),
        training.Validation(validated, class_numbers(train["label"], labels), nearest),
        settings,
        run,
        words,
    )
    if encoding.machine.world.rank > 0:
        return {}
    folder = workspace.stage("retriever")
    save_retriever(folder / "retriever.safetensors", model, settings)
    write_history(folder / "history.csv", history)
    run.clear()
    return summarize(history, settings.steps)


def load_words(
    params: Params, workspace: Workspace, ids: pl.Series, codes: Tensor, device: torch.device
) -> WordQueries | None:
    """Return the texts of training images ``ids`` (N,) with these codes (N, M), and the encoder of
    texts on ``device``; None if the catalogue has no texts."""
    encoder = load_text_encoder(workspace.existing("texts", TEXT_ENCODER))
    if encoder is None:
        return None
    table = read_parquet(workspace.existing("catalog", TEXTS))
    smoothing = params.retriever.label_smoothing
    return WordQueries(
        encoder.to(device), ImageTexts.build(ids, table), codes, params.texts, smoothing
    )


def find_nearest(database: Tensor, queries: Tensor) -> Tensor:
    """Return the rows (V, k) of ``database`` features (N, S) with the largest cosine to each of
    ``queries`` (V, S), as many as validation looks at."""
    unit = F.normalize(database, dim=-1)
    return brute_force_search(F.normalize(queries, dim=-1), unit, training.CUTOFF).ids
