"""Encoding on a Ray cluster gives what encoding here gives, whatever happens to its workers."""

import dataclasses
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irgen.catalog.shards import Images
from irgen.encoding.encode import NOT_FINITE, encode_summaries
from irgen.encoding.views import encode_views
from irgen.errors import ImageError, NumberError

from ..ray_cluster import start_cluster, this_module
from . import conftest
from .conftest import CHANGES, Counting, encoder, hashes, on_cluster

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


@pytest.fixture(scope="module")
def two_workers() -> Iterator[Any]:
    with start_cluster(2, conftest, this_module(__name__)) as nodes:
        yield nodes


def test_features_and_views_are_those_of_this_machine_to_the_last_bit(encoding, two_workers):
    model, image_hashes, clustered = encoder(), hashes(encoding), on_cluster(encoding)
    summaries = encode_summaries(model, image_hashes, clustered)
    assert np.array_equal(summaries, encode_summaries(model, image_hashes, encoding))
    here, views = (encode_views(model, image_hashes, CHANGES, 0, e) for e in (encoding, clustered))
    assert np.array_equal(views.summaries, here.summaries)
    assert np.array_equal(views.tokens, here.tokens)


def die_once(flag: Path) -> None:
    """Kill this process if it is the first to take the flag away."""
    with suppress(FileNotFoundError):
        flag.unlink()
        os.kill(os.getpid(), signal.SIGKILL)


class DyingEncoder(Counting):
    flag: Path

    def forward(self, pixels):
        die_once(self.flag)
        return super().forward(pixels)


class DyingImages(Images):
    flag: Path

    def read(self, sha256: str) -> bytes:
        die_once(self.flag)
        return super().read(sha256)


def test_a_killed_decoder_and_a_killed_encoder_change_nothing(encoding, two_workers, tmp_path):
    model, image_hashes, clustered = encoder(), hashes(encoding), on_cluster(encoding)
    summaries = encode_summaries(model, image_hashes, encoding)
    model.__class__, model.flag = DyingEncoder, tmp_path / "encoder"
    images = Images(encoding.images.folder)
    images.__class__, images.flag = DyingImages, tmp_path / "decoder"
    for flag in (model.flag, images.flag):
        flag.touch()
    clustered = dataclasses.replace(clustered, images=images)
    assert np.array_equal(encode_summaries(model, image_hashes, clustered), summaries)
    assert not model.flag.exists() and not images.flag.exists()


class BrokenImages(Images):
    broken: str

    def read(self, sha256: str) -> bytes:
        return b"no image" if sha256 == self.broken else super().read(sha256)


def test_errors_of_workers_are_those_of_this_machine(encoding, two_workers):
    model, image_hashes, clustered = encoder(), hashes(encoding), on_cluster(encoding)
    images = Images(encoding.images.folder)
    images.__class__, images.broken = BrokenImages, image_hashes[11]
    errors = []
    for way in (encoding, clustered):
        with pytest.raises(ImageError) as error:
            encode_summaries(model, image_hashes, dataclasses.replace(way, images=images))
        errors.append((error.type, str(error.value)))
    assert errors[0] == errors[1]
    model.backbone.conv1[0].weight.data[0] = np.nan
    with pytest.raises(NumberError, match=rf"^encoded views: .* not finite; {NOT_FINITE}$"):
        encode_views(model, image_hashes, CHANGES, 0, clustered)
