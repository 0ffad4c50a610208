"""Presets fit how many images and labels there are, and are valid settings."""

from dataclasses import replace

import pytest

from irgen.params import Params, check
from irgen.params.presets import (
    CPU_ENCODER,
    IMAGES_A_CODE,
    Collection,
    Pretrained,
    choose_kind,
    digits,
    drawings,
    fit_codebook,
    fit_codes,
    photos,
    tiny_images,
    tuned_photos,
    without_labels,
)
from irgen.params.strict import parse
from irgen.params.writing import merge_values

ENCODER = Pretrained(name=CPU_ENCODER, weights="hub", image_size=224, crop=0.875)
SOURCE = {"download": {"source": "../photos"}}


def collection(images: int, labels: int, side: int = 224) -> Collection:
    trained = round(0.72 * images)
    return Collection(images=images, trained=trained, labels=labels, side=side, channels=3)


@pytest.mark.parametrize("images", [20, 400, 3781, 300_000])
@pytest.mark.parametrize("labels", [2, 10, 242])
def test_every_preset_is_valid_for_few_and_many_images(images, labels):
    some = collection(images, labels)
    for parts in (
        [digits()],
        [tiny_images(some)],
        [drawings(some)],
        [photos(some, ENCODER)],
        [photos(some, ENCODER), tuned_photos(some, ENCODER)],
        [photos(some, ENCODER), without_labels(some)],
    ):
        params = parse(Params, merge_values([*parts, SOURCE]), where="preset")
        check(params)
        tokenizer = params.tokenizer
        if parts[0] != digits():
            assert tokenizer.codebook <= max(2, some.trained // IMAGES_A_CODE)
        if tokenizer.labels == "clusters":
            assert tokenizer.clusters <= some.trained


@pytest.mark.parametrize(
    ("images", "labels", "codes"),
    [(400, 10, (2, 32)), (3781, 10, (2, 64)), (4840, 242, (2, 256)), (300_000, 100, (3, 256))],
)
def test_codebooks_grow_with_labels_and_images(images, labels, codes):
    assert tuple(fit_codes(collection(images, labels)).values()) == codes


def test_more_labels_never_mean_more_codes_than_images_allow():
    assert fit_codebook(collection(100, 50)) == 8
    assert fit_codebook(collection(20, 2)) == 2


def test_large_collections_train_longer_and_small_ones_not_shorter():
    few, some, many = (photos(collection(n, 10), ENCODER) for n in (300, 3000, 300_000))
    assert few["tokenizer"]["steps"] == some["tokenizer"]["steps"] == 700
    assert many["tokenizer"]["steps"] > 5000


@pytest.mark.parametrize(
    ("side", "drawn", "labelled", "kind"),
    [
        (224, False, True, "photos"),
        (105, True, True, "drawings"),
        (32, False, True, "tiny images"),
        (32, False, False, "photos"),
        (105, True, False, "photos"),
    ],
)
def test_the_preset_follows_from_size_kind_and_labels(side, drawn, labelled, kind):
    chosen, reason = choose_kind(side, drawings=drawn, labelled=labelled)
    assert chosen == kind and reason


def test_a_transformer_is_tuned_on_images_of_its_own_size():
    some = collection(3000, 10)
    assert 0 < tuned_photos(some, ENCODER)["tokenizer"]["tuned_size"] < ENCODER.image_size
    transformer = replace(ENCODER, name="vit_base_patch16_224", fixed_size=True)
    assert tuned_photos(some, transformer)["tokenizer"]["tuned_size"] == 0


@pytest.mark.parametrize("side", [8, 28, 30, 32, 40])
def test_tiny_images_are_of_whole_patches(side):
    size = tiny_images(collection(1000, 10, side))["encoder"]["image_size"]
    assert size % 4 == 0 and 16 <= size <= 40
