"""Semantic tokenizer: summary → tuned embedding → codes, with a class loss on every prefix."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irgen.compute import full_batches
from irgen.models import quantizer
from irgen.models.encoder import ImageEncoder
from irgen.params import Tokenizer as Settings

VERSION = 1  # raise when equal weights give other embeddings or losses


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
        self.adapter = _adapter(summary_width, settings)
        self.classes = nn.Parameter(0.02 * torch.randn(classes, settings.width))
        shape = (settings.levels, settings.codebook, settings.width)
        self.register_buffer("codebooks", torch.zeros(shape))

    def embed(self, inputs: Tensor) -> Tensor:
        """Pixels (B, C, H, W), or summaries (B, S) with a frozen encoder → unit vectors (B, D)."""
        return self.adapt(inputs if self.encoder is None else self.encoder(inputs)[0])

    def adapt(self, summary: Tensor) -> Tensor:
        """Encoder summaries (B, S) → tuned embeddings (B, D) of length 1."""
        return adapt(self.adapter, summary)

    def classify(self, vectors: Tensor) -> Tensor:
        """Return class logits, scaled cosines, of embeddings or prefixes: (…, D) → (…, C)."""
        return self.scale * F.normalize(vectors, dim=-1) @ F.normalize(self.classes, dim=-1).T

    def tokenize(self, embeddings: Tensor) -> Tensor:
        """Unit embeddings (N, D) → codes (N, M) int64."""
        return quantizer.encode(embeddings, self.codebooks)


def _adapter(summary_width: int, settings: Settings) -> nn.Module:
    layers: list[nn.Module] = [nn.LayerNorm(summary_width), nn.Dropout(settings.dropout)]
    if settings.hidden:
        layers += [nn.Linear(summary_width, settings.hidden), nn.GELU()]
        layers += [nn.Dropout(settings.dropout)]
    return nn.Sequential(*layers, nn.Linear(settings.hidden or summary_width, settings.width))


def adapt(adapter: nn.Module, summary: Tensor) -> Tensor:
    """Encoder summaries (B, S) → unit vectors (B, D), in fp32 whatever the precision around, so
    that an image's embedding and code are the same wherever they are made."""
    with torch.autocast(summary.device.type, enabled=False):
        return F.normalize(adapter(summary.float()), dim=-1)


def losses(
    model: Tokenizer, embeddings: Tensor, labels: Tensor, settings: Settings
) -> dict[str, Tensor]:
    """Return losses of unit embeddings (B, D) and class numbers (B,) (paper, equation 4).

    ``loss/embedding``: cross-entropy of the embedding. ``loss/prefix``: mean over m of the
    cross-entropy of f^≤m, whose gradient passes straight through to the embedding.
    ``loss/residual``: mean over m of ‖f − sg f^≤m‖², relative to ‖f‖² = 1. Each is a mean over the
    batch and over levels, so a weight of 1 neither vanishes nor swamps. ``loss`` is their weighted
    sum; ``accuracy/…`` are shares of the batch.
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
