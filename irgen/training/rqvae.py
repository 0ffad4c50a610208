"""Train the residual-quantised autoencoder whose codes are compared with the tokenizer's."""

import torch
from torch import Tensor

from irgen.compute.seeds import seed_everything
from irgen.models import quantizer, rqvae
from irgen.models.rqvae import Autoencoder
from irgen.params import Identifiers as Settings
from irgen.training.run import (
    RoundMeans,
    TrainingRun,
    draw_batches,
    remaining_rounds,
    round_length,
    show_progress,
)

KMEANS_ITERATIONS = 20  # of the codebooks' start


def train(
    features: Tensor, shape: tuple[int, int], settings: Settings, run: TrainingRun
) -> Autoencoder:
    """Return an autoencoder trained on features (N, S) with N ≥ L; ``shape`` (M, L).

    The codebooks begin as residual k-means of the untrained encoder's latents. A code that no image
    had in a pass is dead, and begins again as the residual of a random image. It is small and
    trains on the CPU, where equal seeds give equal weights.
    """
    seed_everything(run.seed)
    model = Autoencoder(features, shape, settings)
    latents = rqvae.encode_latents(model, features)
    with torch.no_grad():
        model.codebooks.copy_(quantizer.fit(latents, None, shape, KMEANS_ITERATIONS, run.seed)[0])
    adam = torch.optim.Adam(model.parameters(), lr=settings.rqvae_learning_rate)
    size, most = settings.rqvae_batch_size, settings.rqvae_steps
    for steps in remaining_rounds([], most, round_length(len(features), size)):
        generator = seed_everything(run.seed, steps.start)
        used = torch.zeros(shape, dtype=torch.bool)
        means = RoundMeans("identifiers.rqvae_learning_rate", steps)
        batches = draw_batches(steps, len(features), size, run.seed)
        for _, rows in show_progress(batches, "rqvae", steps, most):
            values = rqvae.losses(model, features[rows], settings.rqvae_commitment)
            adam.zero_grad()
            values["loss"].backward()
            adam.step()
            used[torch.arange(shape[0]), values.pop("codes")] = True
            means.add(values, len(rows))
        restarts = 0 if steps.stop == most else _restart(model, features, used, generator)
        run.log(means.row() | {"restarts": float(restarts)}, steps.stop)
    return model.eval()


@torch.no_grad()
def _restart(model: Autoencoder, features: Tensor, used: Tensor, generator: torch.Generator) -> int:
    """Move codes that are not ``used`` (M, L) to residuals of random images; return how many."""
    residual = rqvae.encode_latents(model, features)  # (N, D)
    for level, codebook in enumerate(model.codebooks):
        dead = torch.nonzero(~used[level]).flatten()
        picks = torch.randint(len(features), (len(dead),), generator=generator)
        codebook[dead] = residual[picks]
        residual = residual - codebook[quantizer.assign(residual, codebook)[0]]
    return int((~used).sum())
