"""Give every image its codes and tuned embedding; deterministic."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from irgen.catalog.table import NAMES, read_table
from irgen.checkpoints.identifiers import save_codes, save_embeddings
from irgen.checkpoints.tokenizer import load_tokenizer
from irgen.compute.batches import row_blocks
from irgen.compute.checks import MANY, Spread, check_finite
from irgen.encoding.cache import ROWS
from irgen.encoding.encode import Encoding, open_encoding, store_summaries
from irgen.errors import NumberError
from irgen.files.hash_rows import Hashes
from irgen.files.sealed import read_array
from irgen.files.workspace import Workspace
from irgen.models.quantizer import usage
from irgen.models.tokenizer import Tokenizer, embed_summaries
from irgen.params import Params
from irgen.training.coders import RULES, CoderSettings, ImageSet
from irgen.training.run import Log, TrainingRun

MEASURED = ("train", "database")
RETRAIN = "lower tokenizer.learning_rate, and train again (dvc repro --force tokenizer)"


def run(params: Params, workspace: Workspace, log: Log) -> dict[str, float]:
    """Write ``data/identifiers/<role>/codes.parquet`` and ``embeddings.npy``, row-aligned with the
    catalogue's table of that role. Return how the codes of train and database are spread.

    Embeddings are the tokenizer's, whatever the rule of the codes. Rules learn from training images
    alone. Raises CatalogError if there are too few. Time O(N); memory: codes, hashes, and a block
    of embeddings, with the rule ``semantic``; others hold the features of a role.
    """
    tokenizer, _ = load_tokenizer(workspace.existing("tokenizer", "tokenizer.safetensors"))
    encoding = open_encoding(params.compute, workspace)
    settings = CoderSettings(
        tokenizer=tokenizer,
        shape=(params.tokenizer.levels, params.tokenizer.codebook),
        identifiers=params.identifiers,
        iterations=params.tokenizer.kmeans_iterations,
        run=TrainingRun(machine=encoding.machine, seed=params.seed, log=log),
    )
    assert NAMES[0] == "train", "rules learn from the first role"
    metrics: dict[str, float] = {}
    for role in NAMES:
        table = read_table(workspace.existing("catalog", f"{role}.parquet"))
        images = embed_role(tokenizer, role, table["sha256"], encoding, workspace)
        if params.encoder.weights == "none":  # random features: use the embeddings instead
            images = replace(images, load_features=images.embeddings.detach)
        if role == "train":
            code, metrics = RULES[params.identifiers.rule](images, settings)
        codes = code(images)
        spread = measure_spread(codes, params.tokenizer.codebook) if role in MEASURED else {}
        if role == "train" and len(codes) >= MANY and spread["distinct_codes"] == 1:
            raise NumberError(f"all {len(codes):,} training images have the same codes; {RETRAIN}")
        save_codes(workspace.stage("identifiers") / role, table["id"], codes)
        metrics |= {f"{role}/{name}": value for name, value in spread.items()}
    return metrics


def measure_spread(codes: Tensor, size: int) -> dict[str, float]:
    """Measure how codes (N, M) below ``size`` spread: ``usage``, and the distinct ones."""
    spread = usage(codes, size) if len(codes) else {}
    return spread | {"distinct_codes": float(len(codes.unique(dim=0)))}


def embed_role(
    tokenizer: Tokenizer, role: str, sha256s: Hashes, encoding: Encoding, workspace: Workspace
) -> ImageSet:
    """Write ``embeddings.npy`` of a role's images; return them, mapped to it."""
    blocks = embed_images(tokenizer, role, sha256s, encoding, workspace)
    shape = len(sha256s), tokenizer.codebooks.shape[2]
    embeddings = save_embeddings(workspace.stage("identifiers") / role, shape, blocks)
    return ImageSet(sha256s, embeddings, partial(load_features, workspace, role))


def load_features(workspace: Workspace, role: str) -> Tensor:
    """Return pretrained features (N, S) as unit vectors, since images are compared by cosine."""
    features = read_array(workspace.existing("features", role, "features.npy"))
    return torch.nn.functional.normalize(torch.from_numpy(features), dim=-1)


def embed_images(
    tokenizer: Tokenizer, role: str, sha256s: Hashes, encoding: Encoding, workspace: Workspace
) -> Iterator[np.ndarray]:
    """Yield tuned embeddings (N, D) of a role's images in blocks. Raises NumberError if one is not
    finite, or if those of all training images are the same."""
    spread = Spread()
    for summaries in read_summaries(tokenizer, role, sha256s, encoding, workspace):
        embeddings = embed_summaries(tokenizer, summaries, encoding.machine.device)
        check_finite(embeddings, f"embeddings of {role}", RETRAIN)
        spread.add(embeddings)
        yield embeddings.numpy()
    if role == "train":  # of a small role all may be copies of one image
        spread.check("embeddings of train", RETRAIN)


def read_summaries(
    tokenizer: Tokenizer, role: str, sha256s: Hashes, encoding: Encoding, workspace: Workspace
) -> Iterator[np.ndarray]:
    """Return the pretrained features (N, S) of a role's images in blocks or, if the encoder was
    tuned, its own summaries, which are cached."""
    if tokenizer.encoder is not None:
        return store_summaries(tokenizer.encoder, sha256s, encoding).blocks(sha256s)
    features = read_array(workspace.existing("features", role, "features.npy"))
    return (features[rows] for rows in row_blocks(len(features), ROWS))
