import random

import torch

from irgen.compute.seeds import seed_everything


def test_a_rounds_seed_fixes_every_draw():
    def draws():
        generator = seed_everything(3, 7)
        return torch.rand(2).tolist(), torch.rand(2, generator=generator).tolist(), random.random()

    assert draws() == draws()
    seed_everything(3, 8)
    assert torch.rand(2).tolist() != draws()[0]
