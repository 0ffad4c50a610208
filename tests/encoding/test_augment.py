import dataclasses

import pytest
import torch

from irgen.encoding.augment import augment
from irgen.params import Augment

OFF = Augment(
    views=1, scale=0.0, rotate=0.0, shear=0.0, shift=0.0, flip=False, colour=0.0, erase=0.0
)


def pictures(count: int = 16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (count, 1, 12, 12), generator=generator, dtype=torch.uint8)


def changed(settings: Augment, seed: int = 0, size: int = 12) -> torch.Tensor:
    return augment(pictures(), settings, size, torch.Generator().manual_seed(seed))


def test_with_everything_off_the_picture_stays_as_it_is():
    torch.testing.assert_close(changed(OFF), pictures().float(), atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    "change",
    [
        {"scale": 0.3},
        {"rotate": 20.0},
        {"shear": 15.0},
        {"shift": 0.2},
        {"flip": True},
        {"colour": 0.3},
        {"erase": 1.0},
    ],
    ids=lambda change: next(iter(change)),
)
def test_each_setting_changes_pictures_reproducibly_and_stays_in_range(change):
    settings = dataclasses.replace(OFF, **change)
    one, again, other = changed(settings), changed(settings), changed(settings, seed=1)
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert one.min() >= 0
    assert one.max() <= 255


def test_a_flip_mirrors_some_pictures_and_leaves_the_others():
    flipped = changed(dataclasses.replace(OFF, flip=True))
    plain = pictures().float()
    mirrored = [
        torch.allclose(f, p.flip(-1), atol=1e-3) for f, p in zip(flipped, plain, strict=True)
    ]
    same = [torch.allclose(f, p, atol=1e-3) for f, p in zip(flipped, plain, strict=True)]
    assert all(m != s for m, s in zip(mirrored, same, strict=True))
    assert 0 < sum(mirrored) < 16


def test_pictures_of_a_batch_change_each_in_its_own_way():
    batch = pictures(1).expand(8, -1, -1, -1)
    settings = dataclasses.replace(OFF, shift=0.3)
    made = augment(batch, settings, 12, torch.Generator().manual_seed(0))
    assert len({tuple(picture.flatten().tolist()) for picture in made}) == 8


def test_the_size_may_differ_from_the_input():
    assert changed(OFF, size=7).shape == (16, 1, 7, 7)
