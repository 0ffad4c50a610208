"""Image descriptors that are trained to be compared directly: the rivals that learn no codes."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irgen.models.encoder import ImageEncoder
from irgen.params.baselines import Cgd, Descriptor, Irt


class Combined(nn.Module):
    """CGD (Jun et al. 2019, arXiv 1903.10663): several global descriptors of the token grid, each
    through layers of its own (in the paper a linear one), as one unit vector.

    The descriptors are the grid's mean (SPoC), its generalised mean (GeM, with a learned exponent)
    and its maximum (MAC). The auxiliary classifier reads the first of them, behind its layers, so
    that it teaches something even where the encoder is frozen.
    """

    def __init__(self, token_width: int, classes: int, settings: Cgd):
        super().__init__()
        widths = [len(part) for part in torch.arange(settings.width).tensor_split(3)]
        self.branches = nn.ModuleList(layers(token_width, width, settings) for width in widths)
        self.exponent = nn.Parameter(torch.tensor(3.0))
        self.classes = nn.Linear(widths[0], classes, bias=False)
        self.scale = 1 / settings.temperature

    def forward(self, summary: Tensor, tokens: Tensor) -> Tensor:
        """(B, S) summaries, which are not read, and (B, P, T) tokens → unit vectors (B, D)."""
        pooled = (tokens.mean(1), generalised_mean(tokens, self.exponent), tokens.amax(1))
        parts = zip(self.branches, pooled, strict=True)
        return F.normalize(torch.cat([F.normalize(f(x), dim=-1) for f, x in parts], 1), dim=-1)

    def classify(self, embeddings: Tensor) -> Tensor:
        """Class logits of embeddings' first descriptor, cosines / temperature: (B, D) → (B, C)."""
        first = F.normalize(embeddings[:, : self.classes.in_features], dim=-1)
        return self.scale * first @ F.normalize(self.classes.weight, dim=-1).T


class Projected(nn.Module):
    """IRT_R (El-Nouby et al. 2021, arXiv 2102.05644): the summary (a ViT's class token), reduced in
    width, as a unit vector."""

    def __init__(self, summary_width: int, settings: Irt):
        super().__init__()
        self.layers = layers(summary_width, settings.width, settings)

    def forward(self, summary: Tensor, tokens: Tensor | None = None) -> Tensor:
        """(B, S) summaries and (B, P, T) tokens, which are not read → unit vectors (B, D)."""
        return F.normalize(self.layers(summary), dim=-1)


def layers(inputs: int, outputs: int, settings: Descriptor) -> nn.Sequential:
    """(…, inputs) → (…, outputs), linear or with a hidden layer."""
    inner = settings.hidden or outputs
    first = [nn.LayerNorm(inputs), nn.Dropout(settings.dropout), nn.Linear(inputs, inner)]
    if not settings.hidden:
        return nn.Sequential(*first)
    return nn.Sequential(*first, nn.GELU(), nn.Dropout(settings.dropout), nn.Linear(inner, outputs))


class Described(nn.Module):
    """A head and the encoder it is trained with; None for a frozen one, whose summaries, and tokens
    if the head reads any, it then is given."""

    def __init__(self, head: Combined | Projected, encoder: ImageEncoder | None):
        super().__init__()
        self.head, self.encoder = head, encoder

    def forward(self, *inputs: Tensor) -> Tensor:
        """Pixels (B, C, H, W), or summaries (B, S) and tokens (B, P, T) of a frozen encoder → unit
        vectors (B, D); the head is in fp32 whatever the precision around."""
        return self.describe(*(inputs if self.encoder is None else self.encoder(*inputs)))

    def describe(self, *read: Tensor) -> Tensor:
        """What an encoder has read, summaries (B, S) and tokens (B, P, T) → unit vectors (B, D)."""
        with torch.autocast(read[0].device.type, enabled=False):
            return self.head(*(part.float() for part in read))


def generalised_mean(tokens: Tensor, exponent: Tensor) -> Tensor:
    """GeM: the mean of the tokens' ``exponent``-th powers, back to the first: (B, P, T) → (B, T).

    What is below 1e-6 counts as that, as behind a ReLU, where the paper takes it.

    >>> round(generalised_mean(torch.tensor([[[3.0], [4.0]]]), torch.tensor(2.0)).item() ** 2, 3)
    12.5
    """
    tokens = tokens.clamp_min(1e-6)
    most = tokens.amax(1).detach()  # of the largest, so that no power underflows
    return most * (tokens / most[:, None]).pow(exponent).mean(1).pow(1 / exponent)
