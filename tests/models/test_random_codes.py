"""Random codes follow from content and seed alone."""

import hashlib

import torch

from irgen.models.random_codes import random_codes


def contents(count: int) -> list[str]:
    return [hashlib.sha256(str(i).encode()).hexdigest() for i in range(count)]


def test_a_code_depends_on_no_other_image_and_on_no_order():
    names = contents(50)
    codes = random_codes(names, (4, 32), seed=3)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(0))
    assert torch.equal(random_codes([names[i] for i in order], (4, 32), seed=3), codes[order])
    assert torch.equal(random_codes(names[7:8], (4, 32), seed=3), codes[7:8])


def test_another_seed_gives_other_codes():
    names = contents(50)
    assert (random_codes(names, (4, 32), 0) != random_codes(names, (4, 32), 1)).any(1).all()


def test_every_entry_of_every_level_is_as_likely_as_the_others():
    codes = random_codes(contents(6000), (3, 6), seed=0)
    for level in range(3):
        counts = torch.bincount(codes[:, level], minlength=6)
        assert len(counts) == 6 and (counts - 1000).abs().max() < 5 * (1000 * 5 / 6) ** 0.5
    pairs = torch.bincount(codes[:, 0] * 6 + codes[:, 1], minlength=36)
    assert (pairs - 6000 / 36).abs().max() < 5 * (6000 / 36) ** 0.5  # levels are independent


def test_no_image_has_no_code():
    assert random_codes([], (3, 6), seed=0).shape == (0, 3)
