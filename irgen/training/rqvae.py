"""Trains the residual-quantised autoencoder whose codes are compared with the tokenizer's."""

from collections import defaultdict
from collections.abc import Callable

import torch
from torch import Tensor
from tqdm import tqdm

from irgen.compute import seed_everything
from irgen.encoding.batches import shuffled
from irgen.models import quantizer, rqvae
from irgen.models.rqvae import Autoencoder
from irgen.params import Identifiers as Settings

Log = Callable[[dict[str, float], int], None]
STARTS = 20  # iterations of the k-means that the codebooks begin with


def train(
    features: Tensor, shape: tuple[int, int], settings: Settings, seed: int, log: Log
) -> Autoencoder:
    """An autoencoder trained on features (N, S) with N ≥ L; ``shape`` (M, L).

    The codebooks begin as residual k-means of the untrained encoder's latents. An entry that no
    image had in an epoch is dead, and begins again as the residual of a random image. On the CPU,
    where equal seeds give equal weights; it is small.
    """
    seed_everything(seed)
    model = Autoencoder(features, shape, settings)
    starts, _ = quantizer.fit(rqvae.latents(model, features), None, shape, STARTS, seed)
    with torch.no_grad():
        model.codebooks.copy_(starts)
    adam = torch.optim.Adam(model.parameters(), lr=settings.rqvae_learning_rate)
    epochs = tqdm(range(settings.rqvae_epochs), "rqvae", leave=False, disable=None, unit="epoch")
    for epoch in epochs:
        generator = seed_everything(seed, epoch)
        used = torch.zeros(shape, dtype=torch.bool)
        sums: dict[str, float] = defaultdict(float)
        for rows in shuffled(len(features), settings.rqvae_batch_size, generator):
            found = rqvae.losses(model, features[rows], settings.rqvae_commitment)
            adam.zero_grad()
            found["loss"].backward()
            adam.step()
            used[torch.arange(shape[0]), found.pop("codes")] = True
            for name, value in found.items():
                sums[name] += float(value.detach()) * len(rows)
        row = {name: value / len(features) for name, value in sums.items()}
        last = epoch + 1 == settings.rqvae_epochs
        row["restarts"] = 0.0 if last else float(_restart(model, features, used, generator))
        log(row, epoch + 1)
    return model.eval()


@torch.no_grad()
def _restart(model: Autoencoder, features: Tensor, used: Tensor, generator: torch.Generator) -> int:
    """Moves entries that are not ``used`` (M, L) to residuals of random images; how many were."""
    residual = rqvae.latents(model, features)  # (N, D)
    for level, codebook in enumerate(model.codebooks):
        dead = torch.nonzero(~used[level]).flatten()
        picks = torch.randint(len(features), (len(dead),), generator=generator)
        codebook[dead] = residual[picks]
        residual = residual - codebook[quantizer.assign(residual, codebook)[0]]
    return int((~used).sum())
