"""Give every image its codes and tuned embedding; deterministic."""

from functools import partial

import torch
from torch import Tensor

from irgen.catalog.table import NAMES, read_table
from irgen.checkpoints.identifiers import ImageCodes, save_codes
from irgen.checkpoints.tokenizer import load_tokenizer
from irgen.compute.checks import MANY, check_finite, check_spread
from irgen.encoding.encode import Encoding, encode_summaries, open_encoding
from irgen.errors import NumberError
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
    alone. Raises CatalogError if there are too few.
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
    for role in NAMES:
        table = read_table(workspace.existing("catalog", f"{role}.parquet"))
        sha256s = table["sha256"].to_list()
        embeddings = embed_images(tokenizer, role, sha256s, encoding, workspace)
        images = ImageSet(sha256s, embeddings, partial(load_features, workspace, role))
        if params.encoder.weights == "none":  # random features: use the embeddings instead
            images = ImageSet(sha256s, embeddings, embeddings.clone)
        if role == "train":
            code, metrics = RULES[params.identifiers.rule](images, settings)
        codes = code(images)
        if role == "train" and len(codes) >= MANY and len(codes.unique(dim=0)) == 1:
            raise NumberError(f"all {len(codes):,} training images have the same codes; {RETRAIN}")
        identified = ImageCodes(table["id"].to_list(), codes, embeddings)
        save_codes(workspace.stage("identifiers") / role, identified)
        if role in MEASURED:
            spread = usage(codes, params.tokenizer.codebook) if len(codes) else {}
            metrics |= {f"{role}/{name}": value for name, value in spread.items()}
            metrics[f"{role}/distinct_codes"] = float(len(codes.unique(dim=0)))
    return metrics


def load_features(workspace: Workspace, role: str) -> Tensor:
    """Return pretrained features (N, S) as unit vectors, since images are compared by cosine."""
    features = read_array(workspace.existing("features", role, "features.npy"))
    return torch.nn.functional.normalize(torch.from_numpy(features), dim=-1)


def embed_images(
    tokenizer: Tokenizer, role: str, sha256s: list[str], encoding: Encoding, workspace: Workspace
) -> Tensor:
    """Return tuned embeddings (N, D) of a role's images: from their pretrained features or, if the
    encoder was tuned, from its own summaries, which are cached."""
    if tokenizer.encoder is None:
        summaries = read_array(workspace.existing("features", role, "features.npy"))
    else:
        summaries = encode_summaries(tokenizer.encoder, sha256s, encoding)
    embeddings = embed_summaries(tokenizer, summaries, encoding.machine.device)
    check_finite(embeddings, f"embeddings of {role}", RETRAIN)
    if role == "train":  # of a small role all may be copies of one image
        check_spread(embeddings, "embeddings of train", RETRAIN)
    return embeddings
