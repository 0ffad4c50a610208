"""Learn from training images how images get their codes: one function for each rule."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from irgen.errors import CatalogError
from irgen.files.hash_rows import Hashes
from irgen.models import hierarchy, rqvae
from irgen.models.random_codes import random_codes
from irgen.models.tokenizer import Tokenizer
from irgen.params import Identifiers
from irgen.training import rqvae as autoencoder
from irgen.training.run import TrainingRun


@dataclass(frozen=True)
class ImageSet:
    """Images row by row: content hashes ``sha256s`` (N,), tuned ``embeddings`` (N, D), and a
    function that loads ``features`` (N, S), unit vectors."""

    sha256s: Hashes
    embeddings: Tensor
    load_features: Callable[[], Tensor]


@dataclass(frozen=True, kw_only=True)
class CoderSettings:
    """Settings of a rule: the trained ``tokenizer``, the ``shape`` (M, L) of codes, and k-means
    ``iterations``."""

    tokenizer: Tokenizer
    shape: tuple[int, int]
    identifiers: Identifiers
    iterations: int
    run: TrainingRun


Coder = Callable[[ImageSet], Tensor]  # images → codes (N, M) int64
Rule = Callable[[ImageSet, CoderSettings], tuple[Coder, dict[str, float]]]  # coder and metrics


def learn_semantic(training: ImageSet, settings: CoderSettings) -> tuple[Coder, dict[str, float]]:
    """Code tuned embeddings with the tokenizer's residual quantizer."""
    return lambda images: settings.tokenizer.to("cpu").tokenize(images.embeddings), {}


def learn_random(training: ImageSet, settings: CoderSettings) -> tuple[Coder, dict[str, float]]:
    """Draw codes by the seed and the content hash."""
    return lambda images: random_codes(images.sha256s, settings.shape, settings.run.seed), {}


def learn_hierarchy(training: ImageSet, settings: CoderSettings) -> tuple[Coder, dict[str, float]]:
    """Code features by clusters within clusters of the training images."""
    seed = settings.run.seed
    tree = hierarchy.fit(training.load_features(), settings.shape, settings.iterations, seed)
    metrics = {"hierarchy/split_nodes": float(len(tree.centres))}
    return lambda images: hierarchy.encode(images.load_features(), tree), metrics


def learn_rqvae(training: ImageSet, settings: CoderSettings) -> tuple[Coder, dict[str, float]]:
    """Code features with an RQ-VAE that learns to rebuild those of training images. Raises
    CatalogError for fewer training images than codes a level."""
    features, size = training.load_features(), settings.shape[1]
    if len(features) < size:
        raise CatalogError(
            f"identifiers: rule: rqvae: {size} codes a level cannot be fitted to {len(features)} "
            f"training images; set tokenizer.codebook to {len(features)} or less, or add images"
        )
    model = autoencoder.train(features, settings.shape, settings.identifiers, settings.run)
    errors = rqvae.reconstruction_errors(model, features).tolist()
    metrics = {f"rqvae/error/level_{m}": error for m, error in enumerate(errors, start=1)}
    return lambda images: rqvae.encode(model, images.load_features()), metrics


RULES: dict[str, Rule] = {
    "semantic": learn_semantic,
    "random": learn_random,
    "hierarchical_kmeans": learn_hierarchy,
    "rqvae": learn_rqvae,
}
