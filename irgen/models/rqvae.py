"""A residual-quantised autoencoder (RQ-VAE, Lee et al. 2022; identifiers as of TIGER, Rajput et al.
2023): codes that reconstruct features, without labels."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irgen.compute.batches import full_batches
from irgen.models import quantizer
from irgen.params import Identifiers as Settings


class Autoencoder(nn.Module):
    """Features (B, S) → latents (B, D) → M codes → features.

    Features are centred and scaled as training images are, so that a reconstruction error of 1 is
    that of their mean.
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
        """Centre features (B, S) and scale them by the training images' spread."""
        return (features - self.mean) / self.scale


def losses(model: Autoencoder, features: Tensor, commitment: float) -> dict[str, Tensor]:
    """Return losses of features (B, S), each a mean over the batch, and the ``codes`` (B, M).

    ``loss/reconstruction``: ‖x − x̂‖², whose gradient passes straight through the quantiser.
    ``loss/codebook``: Σ_m ‖sg r_m − e_m‖², which moves codes to the residuals they stand for;
    ``loss/commitment``: Σ_m ‖r_m − sg e_m‖², which keeps the encoder near them.
    """
    inputs = model.standardise(features)
    latents = model.encoder(inputs)  # (B, D)
    codes = quantizer.encode(latents.detach(), model.codebooks.detach())
    prefixes = quantizer.decode(codes, model.codebooks)  # (B, M, D)
    fixed = prefixes.detach()
    before = F.pad(fixed, (0, 0, 1, 0))[:, :-1]  # (B, M, D): reconstructions by the levels above
    vectors = prefixes - F.pad(prefixes, (0, 0, 1, 0))[:, :-1]  # (B, M, D)
    residuals = latents[:, None] - before  # (B, M, D)
    straight = latents + (fixed[:, -1] - latents).detach()
    values = {
        "loss/reconstruction": (model.decoder(straight) - inputs).square().sum(1).mean(),
        "loss/codebook": (residuals.detach() - vectors).square().sum((1, 2)).mean(),
        "loss/commitment": (residuals - vectors.detach()).square().sum((1, 2)).mean(),
    }
    values["loss"] = (
        values["loss/reconstruction"]
        + values["loss/codebook"]
        + commitment * values["loss/commitment"]
    )
    return values | {"codes": codes}


@torch.inference_mode()
def encode_latents(model: Autoencoder, features: Tensor) -> Tensor:
    """Return latents (N, D) of features (N, S), in full batches, so that an image's latent does not
    depend on the others."""
    latents = torch.empty(len(features), model.codebooks.shape[2])
    for rows, new in full_batches(len(features), 1024):
        latents[rows[:new]] = model.encoder(model.standardise(features[rows]))[:new]
    return latents


def encode(model: Autoencoder, features: Tensor) -> Tensor:
    """Return codes (N, M) int64 of features (N, S)."""
    return quantizer.encode(encode_latents(model, features), model.codebooks.detach())


@torch.inference_mode()
def reconstruction_errors(model: Autoencoder, features: Tensor) -> Tensor:
    """Return the mean of ‖x − x̂^≤m‖² over features (N, S), decoded from the first m codes: (M,).

    1 is the error of the training images' mean.
    """
    books, total = model.codebooks.detach(), torch.zeros(len(model.codebooks))
    for rows in features.split(1024):
        prefixes = quantizer.decode(encode(model, rows), books)  # (B, M, D)
        errors = model.decoder(prefixes) - model.standardise(rows)[:, None]  # (B, M, S)
        total += errors.square().sum((0, 2))
    return total / len(features)
