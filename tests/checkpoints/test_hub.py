"""Weights from the hub: fetched once, and one message if that cannot be."""

import time
from dataclasses import replace

import pytest
import timm
import torch
from safetensors.torch import load

from irgen.checkpoints.hub import check_hub, fetch_weights
from irgen.checkpoints.weights import create_encoder
from irgen.errors import WeightsError
from irgen.params import Encoder

NAME = "test_vit"
PATH = "/timm/test_vit.r160_in1k/resolve/main/model.safetensors"
CONFIG = Encoder(name=NAME, weights="hub", image_size=160, channels=3)


def test_weights_are_fetched_once_and_then_found_without_the_hub(hub, monkeypatch):
    token = load(hub.content)["cls_token"]
    assert check_hub(NAME).endswith("MB to fetch")
    loaded = create_encoder(CONFIG, 0).backbone
    assert torch.equal(loaded.cls_token, token)
    asked = len(hub.asked)
    assert "already on this machine" in check_hub(NAME)
    assert torch.equal(create_encoder(CONFIG, 1).backbone.cls_token, token)
    assert len(hub.asked) == asked
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    create_encoder(CONFIG, 0)


def test_a_flipped_bit_in_the_copy_of_the_weights_is_noticed_and_they_are_fetched_again(hub):
    blob = fetch_weights(NAME).resolve()
    content = bytearray(blob.read_bytes())
    content[len(content) // 2] ^= 1
    blob.write_bytes(content)
    with pytest.raises(WeightsError, match=f"is damaged .*: delete {blob}, then run again"):
        create_encoder(CONFIG, 0)
    blob.unlink()
    assert fetch_weights(NAME).read_bytes() == hub.content


@pytest.mark.parametrize("ask", [check_hub, fetch_weights])
def test_without_a_hub_one_message_names_file_address_and_destination(no_hub, ask):
    start = time.monotonic()
    with pytest.raises(WeightsError) as error:
        ask(NAME)
    message = str(error.value)
    assert f"Fetch http://127.0.0.1:9{PATH}" in message
    assert "encoder.weights to weights/test_vit.safetensors" in message
    assert "127.0.0.1:9 does not answer" in message
    assert time.monotonic() - start < 30  # without minutes of retries


def test_the_message_comes_through_the_encoder_as_it_is(no_hub):
    with pytest.raises(WeightsError, match="the weights of test_vit are not on this machine"):
        create_encoder(CONFIG, 0)


def test_a_model_without_pretrained_weights_is_named(no_hub):
    bare = set(timm.list_models()) - set(timm.list_models(pretrained=True))
    name = next(name for name in sorted(bare) if not timm.get_pretrained_cfg(name).has_weights)
    with pytest.raises(WeightsError, match=f"no pretrained weights of '{name}'"):
        create_encoder(replace(CONFIG, name=name), 0)
