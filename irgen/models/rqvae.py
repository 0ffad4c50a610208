"""A residual-quantised autoencoder (RQ-VAE, Lee et al. 2022; identifiers as of TIGER, Rajput et al.
2023): codes that rebuild features, taught without labels."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irgen.models import quantizer
from irgen.params import Identifiers as Settings


class Autoencoder(nn.Module):
    """Features (B, S) → latents (B, D) → M codes → features.

    Features are centred and scaled by what training images have, so that a reconstruction error of
    1 is that of their mean.
    """

    mean: Tensor  # (S,)
    scale: Tensor  # (): root of the mean squared distance from the mean

    def __init__(self, features: Tensor, shape: tuple[int, int], settings: Settings):
        super().__init__()
        inner, outer, wide = settings.rqvae_width, features.shape[1], settings.rqvae_hidden
        mean = features.mean(0)
        spread = (features - mean).square().sum(1).mean().sqrt()
        self.register_buffer("mean", mean)
        self.register_buffer("scale", spread.clamp_min(1e-12))
        self.encoder = nn.Sequential(nn.Linear(outer, wide), nn.GELU(), nn.Linear(wide, inner))
        self.decoder = nn.Sequential(nn.Linear(inner, wide), nn.GELU(), nn.Linear(wide, outer))
        self.codebooks = nn.Parameter(torch.zeros(*shape, inner))  # (M, L, D)

    def standardise(self, features: Tensor) -> Tensor:
        """Features (B, S) in units of the training images' spread."""
        return (features - self.mean) / self.scale


def losses(model: Autoencoder, features: Tensor, commitment: float) -> dict[str, Tensor]:
    """The losses of features (B, S), each a mean over the batch, and the ``codes`` (B, M).

    ``loss/reconstruction``: ‖x − x̂‖², whose gradient passes straight through the quantiser.
    ``loss/codebook``: Σ_m ‖sg r_m − e_m‖², which moves entries to what they stand for;
    ``loss/commitment``: Σ_m ‖r_m − sg e_m‖², which keeps the encoder near them.
    """
    inputs = model.standardise(features)
    latents = model.encoder(inputs)  # (B, D)
    codes = quantizer.encode(latents.detach(), model.codebooks.detach())
    prefixes = quantizer.decode(codes, model.codebooks)  # (B, M, D)
    fixed = prefixes.detach()
    before = F.pad(fixed, (0, 0, 1, 0))[:, :-1]  # (B, M, D): what the levels above stand for
    entries = prefixes - F.pad(prefixes, (0, 0, 1, 0))[:, :-1]  # (B, M, D)
    residuals = latents[:, None] - before  # (B, M, D)
    straight = latents + (fixed[:, -1] - latents).detach()
    found = {
        "loss/reconstruction": (model.decoder(straight) - inputs).square().sum(1).mean(),
        "loss/codebook": (residuals.detach() - entries).square().sum((1, 2)).mean(),
        "loss/commitment": (residuals - entries.detach()).square().sum((1, 2)).mean(),
    }
    found["loss"] = (
        found["loss/reconstruction"]
        + found["loss/codebook"]
        + commitment * found["loss/commitment"]
    )
    return found | {"codes": codes}


@torch.inference_mode()
def latents(model: Autoencoder, features: Tensor) -> Tensor:
    """What the encoder makes of features: (N, S) → (N, D), in full batches, so that an image's
    latent does not depend on the others."""
    size, width = 1024, model.codebooks.shape[2]
    found = torch.empty(len(features), width)
    for start in range(0, len(features), size):
        rows = features[start : start + size]
        padded = F.pad(rows, (0, 0, 0, size - len(rows)))
        found[start : start + size] = model.encoder(model.standardise(padded))[: len(rows)]
    return found


def encode(model: Autoencoder, features: Tensor) -> Tensor:
    """Codes (N, M) int64 of features (N, S)."""
    return quantizer.encode(latents(model, features), model.codebooks.detach())


@torch.inference_mode()
def errors(model: Autoencoder, features: Tensor) -> Tensor:
    """What the decoder gets wrong with the first m codes alone: (M,), the mean over (N, S) features
    of ‖x − x̂^≤m‖², where 1 is the error of the training images' mean."""
    books, total = model.codebooks.detach(), torch.zeros(len(model.codebooks))
    for rows in features.split(1024):
        prefixes = quantizer.decode(encode(model, rows), books)  # (B, M, D)
        wrong = model.decoder(prefixes) - model.standardise(rows)[:, None]  # (B, M, S)
        total += wrong.square().sum((0, 2))
    return total / len(features)
