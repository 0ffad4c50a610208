"""Image descriptors that are compared by cosine: baselines without codes."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irgen.models.encoder import ImageEncoder
from irgen.params.baselines import Cgd, Descriptor, Irt

VERSION = 1  # raise when equal weights give other descriptors


class CgdHead(nn.Module):
    """CGD (Jun et al. 2019, arXiv 1903.10663): several global descriptors of the token grid, each
    through layers of its own (in the paper a linear one), as one unit vector.

    The descriptors are the grid's mean (SPoC), its generalised mean (GeM, with a learned exponent)
    and its maximum (MAC). The auxiliary classifier is on top of the first one's layers, so that its
    loss trains something even where the encoder is frozen.
    """

    def __init__(self, token_width: int, classes: int, settings: Cgd):
        super().__init__()
        widths = [len(part) for part in torch.arange(settings.width).tensor_split(3)]
        self.branches = nn.ModuleList(_layers(token_width, width, settings) for width in widths)
        self.exponent = nn.Parameter(torch.tensor(3.0))
        self.classes = nn.Linear(widths[0], classes, bias=False)
        self.scale = 1 / settings.temperature

    def forward(self, summary: Tensor, tokens: Tensor) -> Tensor:
        """(B, S) summaries, which are ignored, and (B, P, T) tokens → unit vectors (B, D)."""
        pooled = (tokens.mean(1), generalised_mean(tokens, self.exponent), tokens.amax(1))
        parts = zip(self.branches, pooled, strict=True)
        return F.normalize(torch.cat([F.normalize(f(x), dim=-1) for f, x in parts], 1), dim=-1)

    def classify(self, embeddings: Tensor) -> Tensor:
        """Return class logits, cosine / temperature, of the first descriptor: (B, D) → (B, C)."""
        first = F.normalize(embeddings[:, : self.classes.in_features], dim=-1)
        return self.scale * first @ F.normalize(self.classes.weight, dim=-1).T


class IrtHead(nn.Module):
    """IRT_R (El-Nouby et al. 2021, arXiv 2102.05644): the summary (a ViT's class token), reduced in
    width, as a unit vector."""

    def __init__(self, summary_width: int, settings: Irt):
        super().__init__()
        self.layers = _layers(summary_width, settings.width, settings)

    def forward(self, summary: Tensor, tokens: Tensor | None = None) -> Tensor:
        """(B, S) summaries and (B, P, T) tokens, which are ignored → unit vectors (B, D)."""
        return F.normalize(self.layers(summary), dim=-1)


class DescriptorModel(nn.Module):
    """A head and the encoder it is trained with.

    ``encoder`` is None for a frozen one: inputs are then its summaries and, if the head needs them,
    tokens.
    """

    def __init__(self, head: CgdHead | IrtHead, encoder: ImageEncoder | None):
        super().__init__()
        self.head, self.encoder = head, encoder

    def forward(self, *inputs: Tensor) -> Tensor:
        """Pixels (B, C, H, W), or summaries (B, S) and tokens (B, P, T) of a frozen encoder → unit
        vectors (B, D); the head is in fp32 whatever the precision around."""
        return self.describe(*(inputs if self.encoder is None else self.encoder(*inputs)))

    def describe(self, *encoded: Tensor) -> Tensor:
        """Turn encoder outputs, summaries (B, S) and tokens (B, P, T), into unit vectors (B, D)."""
        with torch.autocast(encoded[0].device.type, enabled=False):
            return self.head(*(part.float() for part in encoded))


def generalised_mean(tokens: Tensor, exponent: Tensor) -> Tensor:
    """Return GeM, the ``exponent``-th root of the mean of powers: (B, P, T) → (B, T).

    Tokens below 1e-6 count as that, as after the ReLU in the paper.

    >>> round(generalised_mean(torch.tensor([[[3.0], [4.0]]]), torch.tensor(2.0)).item() ** 2, 3)
    12.5
    """
    tokens = tokens.clamp_min(1e-6)
    most = tokens.amax(1).detach()  # of the largest, so that no power underflows
    return most * (tokens / most[:, None]).pow(exponent).mean(1).pow(1 / exponent)


def _layers(inputs: int, outputs: int, settings: Descriptor) -> nn.Sequential:
    inner = settings.hidden or outputs
    first = [nn.LayerNorm(inputs), nn.Dropout(settings.dropout), nn.Linear(inputs, inner)]
    if not settings.hidden:
        return nn.Sequential(*first)
    return nn.Sequential(*first, nn.GELU(), nn.Dropout(settings.dropout), nn.Linear(inner, outputs))
