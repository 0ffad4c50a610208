"""Seed random numbers, so that a resumed run draws the same ones."""

import random

import numpy as np
import torch


def seed_everything(*parts: int) -> torch.Generator:
    """Seed torch and random from ``parts`` and return a CPU generator of its own.

    Called at the start of each round with (seed, step), so that a resumed run needs no generator
    state.
    """
    generator = seeded_generator(*parts)
    random.seed(generator.initial_seed())
    torch.manual_seed(generator.initial_seed())
    return generator


def seeded_generator(*parts: int) -> torch.Generator:
    """Return a CPU generator seeded from ``parts``."""
    seed = int(np.random.SeedSequence(parts).generate_state(1)[0])
    return torch.Generator().manual_seed(seed)
