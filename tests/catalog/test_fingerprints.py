"""Near copies have near fingerprints, and none is overlooked for speed."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from irgen.catalog import fingerprints
from irgen.catalog.fingerprints import ALIKE, MAX_BITS, find_near, fingerprint, thumbnail


def scene(number: int) -> Image.Image:
    """Smooth colours in a picture of 160 × 120, another one for each number."""
    coarse = np.random.default_rng(number).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((160, 120), Image.Resampling.BICUBIC)


def saved(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file)


def prints(images: list[Image.Image]) -> np.ndarray:
    return np.array([fingerprint(image) for image in images], np.uint64).reshape(-1, 2)


@pytest.mark.parametrize(
    "change",
    [
        lambda image: saved(image, 40),
        lambda image: image.resize((80, 60)),
        lambda image: image.point(lambda value: min(255, int(1.1 * value + 5))),
        lambda image: image.convert("L"),
    ],
    ids=["saved again", "half the size", "brighter", "grey"],
)
def test_a_copy_is_near_and_alike(change) -> None:
    images = [scene(number) for number in range(40)]
    copies = [change(image) for image in images]
    near = find_near(prints(images), prints(copies))
    assert {(row, row) for row in range(40)} <= {(a, b) for a, b, _ in near.tolist()}
    pairs = zip(images, copies, strict=True)
    assert all(thumbnail(a) @ thumbnail(b) >= ALIKE for a, b in pairs)


def test_other_pictures_are_not() -> None:
    images = [scene(number) for number in range(60)]
    assert len(find_near(prints(images), prints(images))) == 60


def test_what_a_crowd_has_alike_is_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten share one band of 16 bits and have the other seven of their own."""
    monkeypatch.setattr(fingerprints, "CROWD", 9)
    own = np.random.default_rng(0).integers(1, 1 << 16, (11, 8), dtype=np.uint16)
    own[:10, 0] = 5
    crowd = own.view(np.uint64)
    assert find_near(crowd[:10], crowd).tolist() == [[i, i, 0] for i in range(10)]
    own[1] = own[0]
    own[1, 1:] ^= 1  # as near as can be, in the band that ten have alike
    assert [1, 0, 7] not in find_near(crowd, crowd).tolist()
    monkeypatch.setattr(fingerprints, "CROWD", 10)
    assert [1, 0, 7] in find_near(crowd, crowd).tolist()


def test_pictures_without_contrast_are_near_nothing() -> None:
    flat = [Image.new("L", (9, 9), grey) for grey in (0, 128)]
    assert find_near(prints(flat), prints(flat)).shape == (0, 3)
    assert thumbnail(flat[0]) @ thumbnail(flat[1]) == 0
    assert find_near(np.empty((0, 2), np.uint64), prints(flat)).shape == (0, 3)


BITS = st.lists(
    st.tuples(st.integers(0, 1), st.sets(st.integers(0, 127), max_size=12)), max_size=12
)


@settings(deadline=None, max_examples=60)
@given(BITS, BITS)
def test_the_bands_find_what_comparing_all_with_all_finds(asked: list, others: list) -> None:
    """Fingerprints that differ in a few bits from one of two."""
    centres = np.random.default_rng(0).integers(0, 2, (2, 128), dtype=np.uint8)

    def make(drawn: list) -> np.ndarray:
        whole = np.array([centres[which] for which, _ in drawn], np.uint8).reshape(-1, 128)
        for row, (_, flipped) in enumerate(drawn):
            whole[row, list(flipped)] ^= 1
        return np.packbits(whole, axis=1).view(np.uint64).reshape(-1, 2)

    left, right = make(asked), make(others)
    differ = np.bitwise_count(left[:, None] ^ right[None]).sum(axis=2)
    expected = [
        [a, b, int(differ[a, b])]
        for a in range(len(left))
        for b in range(len(right))
        if differ[a, b] <= MAX_BITS
    ]
    assert find_near(left, right).tolist() == expected
