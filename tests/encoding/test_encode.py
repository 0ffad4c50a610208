import shutil

import numpy as np
import pytest
import torch

from irgen.catalog.images import pixels as images
from irgen.compute.machine import Machine
from irgen.encoding import augment, encode
from irgen.encoding.encode import Encoding, encode_summaries, fingerprint
from irgen.encoding.views import encode_views
from irgen.errors import NumberError, RoomError
from irgen.models.encoder import ImageEncoder

from .conftest import CHANGES, encoder, hashes


def key_of(model: ImageEncoder, machine: Machine) -> str:
    return fingerprint([model], model.decoding, machine)


def test_what_is_no_number_is_never_stored(encoding):
    model = encoder()
    model.backbone.conv1[0].weight.data[0] = torch.nan
    with pytest.raises(NumberError, match=r"encoded images: .* not finite; set compute.precision"):
        encode_summaries(model, hashes(encoding), encoding)
    with pytest.raises(NumberError, match=r"encoded views: .* not finite; set compute.precision"):
        encode_views(model, hashes(encoding), CHANGES, 0, encoding)
    assert not list((encoding.cache / "encodings").rglob("*.safetensors"))


def test_an_image_is_encoded_once_in_its_life(encoding):
    model, image_hashes = encoder(), hashes(encoding)
    model.batches = 0
    first = encode_summaries(model, image_hashes[:10], encoding)
    assert model.batches == 2
    again = encode_summaries(model, image_hashes[:10], encoding)
    assert model.batches == 2
    assert np.array_equal(first, again)
    more = encode_summaries(model, image_hashes[:13], encoding)  # three new ones: one batch
    assert model.batches == 3
    assert np.array_equal(more[:10], first)


def test_a_disk_without_room_for_the_rest_is_told_after_the_first_shard(encoding, monkeypatch):
    monkeypatch.setattr(encode, "SHARD", 1)
    usage = shutil.disk_usage(encoding.cache.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=13 * 24 * 4 - 1))
    model, image_hashes = encoder(), hashes(encoding)
    model.batches = 0
    with pytest.raises(RoomError, match="no space left on the disk for encodings of 13 images"):
        encode_summaries(model, image_hashes, encoding)
    assert model.batches == 1
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    encode_summaries(model, image_hashes, encoding)
    assert model.batches == 3  # of 8 images: what was done is kept


def test_what_takes_long_to_encode_is_stored_in_smaller_shards(encoding, monkeypatch):
    monkeypatch.setattr(encode, "SECONDS", 0.0)
    encode_summaries(encoder(), hashes(encoding), encoding)
    assert len(list((encoding.cache / "encodings").rglob("*.safetensors"))) == 3


def test_a_summary_does_not_depend_on_what_else_is_encoded(encoding, tmp_path):
    image_hashes = hashes(encoding)
    whole = encode_summaries(encoder(), image_hashes, encoding)
    apart = Encoding(
        images=encoding.images,
        machine=encoding.machine,
        encoder_machine=encoding.machine,
        settings=encoding.settings,
        cache=tmp_path / "other",
    )
    for row in (20, 3, 11):
        assert np.array_equal(
            encode_summaries(encoder(), [image_hashes[row]], apart)[0], whole[row]
        )


def test_rows_follow_the_question_and_repeats_are_allowed(encoding):
    image_hashes = hashes(encoding)
    whole = encode_summaries(encoder(), image_hashes, encoding)
    asked = [image_hashes[5], image_hashes[2], image_hashes[5]]
    assert np.array_equal(encode_summaries(encoder(), asked, encoding), whole[[5, 2, 5]])
    assert encode_summaries(encoder(), [], encoding).shape == (0, 24)


def test_other_weights_or_another_precision_share_nothing(encoding):
    bf16 = Machine(device=torch.device("cpu"), autocast=torch.bfloat16)
    keys = {
        key_of(encoder(0), encoding.machine),
        key_of(encoder(1), encoding.machine),
        key_of(encoder(0), bf16),
    }
    assert len(keys) == 3
    assert key_of(encoder(0), encoding.machine) in keys


def test_a_new_version_of_the_code_encodes_anew(encoding, monkeypatch):
    model, image_hashes = encoder(), hashes(encoding)
    encode_summaries(model, image_hashes, encoding)
    encode_views(model, image_hashes, CHANGES, 0, encoding)
    model.batches = 0
    monkeypatch.setattr(augment, "VERSION", augment.VERSION + 1)
    encode_summaries(model, image_hashes, encoding)
    assert model.batches == 0  # summaries have no random changes
    encode_views(model, image_hashes, CHANGES, 0, encoding)
    assert model.batches == 3 * CHANGES.views
    monkeypatch.setattr(images, "VERSION", images.VERSION + 1)
    encode_summaries(model, image_hashes, encoding)
    assert model.batches == 3 * CHANGES.views + 3
