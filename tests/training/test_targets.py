"""Targets of the retriever: what all matches of an image say about the next code."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from irgen.encoding.batches import EncodedViews
from irgen.models.decoder import loss
from irgen.training.retriever import Pairs
from irgen.training.targets import soften

LEVELS, SIZE = 3, 4


def draw_codes(*shape: int) -> torch.Tensor:
    return torch.randint(SIZE, (*shape, LEVELS), generator=torch.Generator().manual_seed(0))


def count_shares(drawn: list[int], matches: list[list[int]], level: int) -> list[float]:
    """Return the share of each code at ``level`` among matches with the prefix of ``drawn``."""
    following = [match[level] for match in matches if match[:level] == drawn[:level]]
    return [following.count(code) / len(following) for code in range(SIZE)]


def test_targets_are_the_shares_that_a_plain_count_gives():
    matches = draw_codes(6, 40) // 2  # few codes, so that many share a prefix
    drawn = matches[:, 7]
    shares = soften(drawn, matches, torch.ones(6, 40, dtype=torch.bool), SIZE)
    for image in range(6):
        for level in range(LEVELS):
            counted = count_shares(drawn[image].tolist(), matches[image].tolist(), level)
            assert shares[image, level].tolist() == pytest.approx(counted)


def test_the_only_match_is_a_hard_target():
    drawn = draw_codes(5)
    shares = soften(drawn, drawn[:, None], torch.ones(5, 1, dtype=torch.bool), SIZE)
    assert torch.equal(shares, F.one_hot(drawn, SIZE).float())


def test_over_all_draws_the_loss_is_that_of_hard_targets():
    matches = draw_codes(1, 30) // 2
    logits = torch.randn(30, LEVELS, SIZE, generator=torch.Generator().manual_seed(1))
    # As a decoder's, logits of a level depend on the prefix alone.
    for level in range(LEVELS):
        numbers = matches[0, :, :level].unique(dim=0, return_inverse=True)[1] if level else 0
        logits[:, level] = logits[numbers, level]
    drawn = matches[0]
    shares = soften(drawn, matches.expand(30, -1, -1), torch.ones(30, 30, dtype=torch.bool), SIZE)
    hard, soft = (loss(logits, targets, 0.1) for targets in (drawn, shares))
    assert float(soft) == pytest.approx(float(hard), rel=1e-6)


def test_images_of_one_batch_may_have_different_numbers_of_neighbours():
    images = EncodedViews(np.zeros((3, 1, 2), np.float32), None)
    codes = torch.tensor([[0, 1], [2, 3], [2, 0]])
    pairs = Pairs(images, codes, torch.tensor([1, 2, 0]), torch.tensor([0, 2, 2, 3]))
    rows = torch.tensor([2, 0])
    targets = pairs.soften(rows, torch.tensor([[0, 1], [2, 0]]), SIZE)
    assert targets[0].tolist() == [[1, 0, 0, 0], [0, 1, 0, 0]]
    assert targets[1].tolist() == [[0, 0, 1, 0], [0.5, 0, 0, 0.5]]
