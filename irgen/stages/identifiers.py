"""Codes and tuned embeddings of every role's images; deterministic."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from irgen.catalog.table import NAMES, read_table
from irgen.checkpoints.identifiers import Identified, save_identified
from irgen.checkpoints.tokenizer import load_tokenizer
from irgen.encoding.encode import Encoding, encode_summaries, open_encoding
from irgen.errors import CatalogError
from irgen.files import read_array
from irgen.models import hierarchy, rqvae
from irgen.models.quantizer import usage
from irgen.models.random_codes import random_codes
from irgen.models.tokenizer import Tokenizer, adapt_all
from irgen.params import Identifiers, Params
from irgen.training import rqvae as autoencoding
from irgen.workspace import Workspace

MEASURED = ("train", "database")

Log = Callable[[dict[str, float], int], None]


@dataclass(frozen=True)
class Images:
    """A role's images, row by row: content hashes ``sha256s`` (N,), tuned ``embeddings`` (N, D),
    the folder of the pretrained features, and whether they are ``pretrained`` at all."""

    role: str
    sha256s: list[str]
    embeddings: Tensor
    workspace: Workspace
    pretrained: bool

    def features(self) -> Tensor:
        """Pretrained features (N, S), of length 1, since images are compared by cosine. Of an
        encoder without weights they would say nothing: then they are the tuned embeddings."""
        if not self.pretrained:
            return self.embeddings
        path = self.workspace.existing("features", self.role, "features.npy")
        return torch.nn.functional.normalize(torch.from_numpy(read_array(path)), dim=-1)


Coder = Callable[[Images], Tensor]  # images → codes (N, M) int64


def run(params: Params, workspace: Workspace, log: Log) -> dict[str, float]:
    """Writes ``data/identifiers/<role>/codes.parquet`` and ``embeddings.npy``, row-aligned with the
    catalogue's table of that role. Metrics of train and database.

    Embeddings are the tokenizer's, whatever the rule the codes are made by; what a rule has to
    learn it learns of training images. Raises CatalogError if they are too few for it.
    """
    model, _ = load_tokenizer(workspace.existing("tokenizer", "tokenizer.safetensors"))
    means = Means(
        tokenizer=model,
        shape=(params.tokenizer.levels, params.tokenizer.codebook),
        settings=params.identifiers,
        iterations=params.tokenizer.kmeans_iterations,
        seed=params.seed,
        log=log,
    )
    encoding = open_encoding(params.compute, workspace)
    found: dict[str, float] = {}
    code: Coder | None = None
    for role in NAMES:
        table = read_table(workspace.existing("catalog", f"{role}.parquet"))
        sha256s = table["sha256"].to_list()
        embeddings = tuned(model, role, sha256s, encoding, workspace)
        pretrained = params.encoder.weights != "none"
        images = Images(role, sha256s, embeddings, workspace, pretrained)
        if code is None:
            assert role == "train", "training images come first"
            code, learnt = RULES[params.identifiers.rule](images, means)
            found |= learnt
        codes = code(images)
        save_identified(
            workspace.stage("identifiers") / role,
            Identified(table["id"].to_list(), codes, embeddings),
        )
        if role not in MEASURED:
            continue
        spread = usage(codes, params.tokenizer.codebook) if len(codes) else {}
        found |= {f"{role}/{name}": value for name, value in spread.items()}
        found[f"{role}/distinct_codes"] = float(len(codes.unique(dim=0)))
    return found


@dataclass(frozen=True, kw_only=True)
class Means:
    """What a rule may use beside the training images: the trained ``tokenizer``, the ``shape``
    (M, L) of codes, and how to learn."""

    tokenizer: Tokenizer
    shape: tuple[int, int]
    settings: Identifiers
    iterations: int
    seed: int
    log: Log


Rule = Callable[[Images, Means], tuple[Coder, dict[str, float]]]  # and what was measured


def semantic(training: Images, means: Means) -> tuple[Coder, dict[str, float]]:
    """By the tokenizer's residual quantiser, of tuned embeddings."""
    return lambda images: means.tokenizer.to("cpu").tokenize(images.embeddings), {}


def at_random(training: Images, means: Means) -> tuple[Coder, dict[str, float]]:
    """By the seed and the content hash."""
    return lambda images: random_codes(images.sha256s, means.shape, means.seed), {}


def hierarchical_kmeans(training: Images, means: Means) -> tuple[Coder, dict[str, float]]:
    """By clusters in clusters of the training images' pretrained features."""
    tree = hierarchy.fit(training.features(), means.shape, means.iterations, means.seed)
    split = {"hierarchy/split_nodes": float(len(tree.centres))}
    return lambda images: hierarchy.encode(images.features(), tree), split


def autoencoded(training: Images, means: Means) -> tuple[Coder, dict[str, float]]:
    """By an RQ-VAE that learns to rebuild the training images' pretrained features."""
    features, size = training.features(), means.shape[1]
    if len(features) < size:
        raise CatalogError(
            f"identifiers: rule: rqvae: {size} entries a level cannot be fitted to "
            f"{len(features)} training images; set tokenizer.codebook to {len(features)} or less, "
            "or add images"
        )
    coder = autoencoding.train(features, means.shape, means.settings, means.seed, means.log)
    wrong = rqvae.errors(coder, features).tolist()
    error = {f"rqvae/error/level_{m}": value for m, value in enumerate(wrong, start=1)}
    return lambda images: rqvae.encode(coder, images.features()), error


RULES: dict[str, Rule] = {
    "semantic": semantic,
    "random": at_random,
    "hierarchical_kmeans": hierarchical_kmeans,
    "rqvae": autoencoded,
}


def tuned(
    model: Tokenizer, role: str, sha256s: list[str], encoding: Encoding, workspace: Workspace
) -> Tensor:
    """Tuned embeddings (N, D) of a role's images, from its cached summaries or, with a tuned
    encoder, from those images the encoder has not seen yet and the cache."""
    if model.encoder is None:
        known = read_array(workspace.existing("features", role, "features.npy"))
    else:
        known = encode_summaries(model.encoder, sha256s, encoding)
    return adapt_all(model, known, encoding.machine.device)
