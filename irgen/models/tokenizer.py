"""Semantic tokenizer: summary → tuned embedding → codes, with a class loss on every prefix."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irgen.compute.batches import full_batches
from irgen.errors import ParamsError
from irgen.models import quantizer
from irgen.models.encoder import ImageEncoder
from irgen.params import Tokenizer as Settings

BLOCK = 65536  # summaries normed at once
PRETRAINED_SHARE = 0.5  # of a cosine, where embeddings have a pretrained part
NEIGHBOUR_TEMPERATURE = 0.05  # of cosines: the nearest few of a batch weigh most
VERSION = 1  # raise when equal weights give other embeddings or losses


class Adapter(nn.Module):
    """Map encoder summaries (B, S) to unit embeddings (B, D): a part that is trained and, if
    ``pretrained_width`` is not 0, a part that keeps what the pretrained encoder sees.

    Training gathers the images of a label, and other images with them: an image of a class that
    nobody taught loses its neighbours. The second part, the principal components of summaries,
    keeps them. A cosine is the mean of those of both parts, weighted by PRETRAINED_SHARE.
    """

    centre: Tensor  # (S,): mean of unit summaries
    directions: Tensor  # (K, S): their principal directions

    def __init__(self, summary_width: int, settings: Settings):
        super().__init__()
        self.summary_width, kept = summary_width, settings.pretrained_width
        if kept > summary_width:
            raise ParamsError(
                f"tokenizer.pretrained_width: {kept} is more than the {summary_width} numbers of "
                "the encoder's summary"
            )
        layers: list[nn.Module] = [nn.LayerNorm(summary_width), nn.Dropout(settings.dropout)]
        if settings.hidden:
            layers += [nn.Linear(summary_width, settings.hidden), nn.GELU()]
            layers += [nn.Dropout(settings.dropout)]
        last = nn.Linear(settings.hidden or summary_width, settings.width - kept)
        self.layers = nn.Sequential(*layers, last)
        self.register_buffer("centre", torch.zeros(summary_width if kept else 0))
        self.register_buffer("directions", torch.zeros(kept, len(self.centre)))

    def forward(self, summary: Tensor) -> Tensor:
        """Return unit embeddings (B, D) of summaries (B, S), in fp32 whatever the precision around,
        so that an image's embedding and code are the same wherever they are made."""
        with torch.autocast(summary.device.type, enabled=False):
            trained = F.normalize(self.layers(summary.float()), dim=-1)
            if not len(self.directions):
                return trained
            kept = F.normalize(summary.float(), dim=-1) - self.centre
            kept = F.normalize(kept @ self.directions.T, dim=-1)
            parts = ((1 - PRETRAINED_SHARE) ** 0.5 * trained, PRETRAINED_SHARE**0.5 * kept)
            return torch.cat(parts, dim=-1)

    @torch.no_grad()
    def keep_directions(self, summaries: np.ndarray) -> None:
        """Set the pretrained part to the principal directions of training summaries (N, S), which
        may be memory-mapped: blocks of them are read, twice."""

        def unit_blocks() -> Iterator[Tensor]:
            for start in range(0, len(summaries), BLOCK):
                block = np.array(summaries[start : start + BLOCK], np.float32)
                yield F.normalize(torch.from_numpy(block), dim=-1)

        sums = torch.stack([block.sum(0) for block in unit_blocks()])
        self.centre.copy_(sums.sum(0) / len(summaries))
        centred = (block - self.centre for block in unit_blocks())
        self.directions.copy_(_principal_directions(centred)[: len(self.directions)])

    @torch.no_grad()
    def start_at_features(self, summaries: Tensor) -> None:
        """Set a linear map to the principal directions of training summaries (N, S), so that
        embeddings start with the encoder's neighbours. A map with a hidden layer stays."""
        norm, linear = self.layers[0], self.layers[-1]
        assert isinstance(linear, nn.Linear), "an adapter ends with a linear map"
        if linear.in_features != summaries.shape[1]:
            return
        directions = _principal_directions(norm(block.float()) for block in summaries.split(BLOCK))
        linear.weight.zero_()
        linear.weight[: len(directions)] = directions[: len(linear.weight)]
        linear.bias.zero_()


def _principal_directions(blocks: Iterable[Tensor]) -> Tensor:
    """Return the principal directions (S, S) of vectors, given in blocks (n, S), the strongest
    first."""
    scatter = sum(vectors.T @ vectors for vectors in blocks)
    assert isinstance(scatter, Tensor), "there are vectors"
    return torch.linalg.eigh(scatter).eigenvectors.flip(1).T


class Tokenizer(nn.Module):
    """Encoder (or cached summaries), adapter, cosine classifier and M codebooks of L codes.

    ``encoder`` is None where the encoder is frozen: inputs are then summaries (B, S) instead of
    pixels (B, C, H, W).
    """

    codebooks: Tensor  # (M, L, D)

    def __init__(
        self, settings: Settings, summary_width: int, classes: int, encoder: ImageEncoder | None
    ):
        super().__init__()
        self.encoder = encoder
        self.scale = 1 / settings.temperature
        self.adapter = Adapter(summary_width, settings)
        self.classes = nn.Parameter(0.02 * torch.randn(classes, settings.width))
        shape = (settings.levels, settings.codebook, settings.width)
        self.register_buffer("codebooks", torch.zeros(shape))

    def embed(self, inputs: Tensor) -> Tensor:
        """Pixels (B, C, H, W), or summaries (B, S) with a frozen encoder → unit vectors (B, D)."""
        return self.adapt(inputs if self.encoder is None else self.encoder(inputs)[0])

    def adapt(self, summary: Tensor) -> Tensor:
        """Encoder summaries (B, S) → tuned embeddings (B, D) of length 1."""
        return self.adapter(summary)

    def classify(self, vectors: Tensor) -> Tensor:
        """Return class logits, scaled cosines, of embeddings or prefixes: (…, D) → (…, C)."""
        return self.scale * F.normalize(vectors, dim=-1) @ F.normalize(self.classes, dim=-1).T

    def tokenize(self, embeddings: Tensor) -> Tensor:
        """Unit embeddings (N, D) → codes (N, M) int64."""
        return quantizer.encode(embeddings, self.codebooks)


def neighbour_loss(embeddings: Tensor, features: Tensor) -> Tensor:
    """Return how much unit embeddings (B, D) change the neighbours of features (B, S): the mean
    divergence of each image's similarities to the others of the batch (SEED, Fang et al. 2021)."""
    others = ~torch.eye(len(embeddings), dtype=torch.bool, device=embeddings.device)
    unit = F.normalize(features, dim=-1)
    own, wanted = (
        (vectors @ vectors.T)[others].view(len(vectors), -1) / NEIGHBOUR_TEMPERATURE
        for vectors in (embeddings.float(), unit.float())
    )  # (B, B − 1)
    return F.kl_div(own.log_softmax(1), wanted.softmax(1), reduction="batchmean")


def losses(
    model: Tokenizer,
    embeddings: Tensor,
    labels: Tensor,
    settings: Settings,
    features: Tensor | None = None,
) -> dict[str, Tensor]:
    """Return losses of unit embeddings (B, D) and class numbers (B,) (paper, equation 4).

    ``loss/embedding``: cross-entropy of the embedding. ``loss/prefix``: mean over m of the
    cross-entropy of f^≤m, whose gradient passes straight through to the embedding.
    ``loss/residual``: mean over m of ‖f − sg f^≤m‖², relative to ‖f‖² = 1. Each is a mean over the
    batch and over levels, so a weight of 1 neither vanishes nor swamps. ``loss`` is their weighted
    sum; ``accuracy/…`` are shares of the batch.

    With ``features`` (B, S) of the pretrained encoder, ``loss`` is ``loss/neighbours``, which keeps
    their neighbours, plus ``cluster_weight`` times that sum.
    """
    with torch.no_grad():
        prefixes = quantizer.decode(model.tokenize(embeddings), model.codebooks)  # (B, M, D)
    straight = embeddings[:, None] + (prefixes - embeddings[:, None]).detach()  # (B, M, D)
    own, by_prefix = model.classify(embeddings), model.classify(straight)  # (B, C), (B, M, C)
    smoothing, levels = settings.label_smoothing, prefixes.shape[1]
    values = {
        "loss/embedding": F.cross_entropy(own, labels, label_smoothing=smoothing),
        "loss/prefix": F.cross_entropy(
            by_prefix.flatten(0, 1), labels.repeat_interleave(levels), label_smoothing=smoothing
        ),
        "loss/residual": (embeddings[:, None] - prefixes).square().sum(-1).mean(),
        "accuracy/embedding": (own.argmax(-1) == labels).float().mean(),
    }
    right = (by_prefix.argmax(-1) == labels[:, None]).float().mean(0)  # (M,)
    values |= {f"accuracy/prefix_{m + 1}": right[m] for m in range(levels)}
    values["loss"] = (
        values["loss/embedding"]
        + settings.prefix_weight * values["loss/prefix"]
        + settings.residual_weight * values["loss/residual"]
    )
    if features is not None:
        values["loss/neighbours"] = neighbour_loss(embeddings, features)
        values["loss"] = values["loss/neighbours"] + settings.cluster_weight * values["loss"]
    return values


@torch.inference_mode()
def embed_summaries(model: Tokenizer, summaries: np.ndarray, device: torch.device) -> Tensor:
    """Return tuned embeddings (N, D), on the CPU, of summaries (N, S).

    Batches are always full, so an image's embedding does not depend on the others.
    """
    model.eval().to(device)
    embeddings = torch.empty(len(summaries), model.codebooks.shape[2])
    for rows, new in full_batches(len(summaries), 1024):
        batch = torch.from_numpy(summaries[rows.numpy()]).to(device)
        embeddings[rows[:new]] = model.adapt(batch)[:new].cpu()
    return embeddings


def class_numbers(labels: Iterable[str], classes: Sequence[str]) -> Tensor:
    """Return class numbers (N,) int64 of labels, −1 for one that is not among ``classes``.

    >>> class_numbers(["b", "x", "a"], ["a", "b"]).tolist()
    [1, -1, 0]
    """
    numbers = {name: i for i, name in enumerate(classes)}
    return torch.tensor([numbers.get(label, -1) for label in labels], dtype=torch.int64)
