"""Weights from the hub: fetched once, and one message if that cannot be."""

import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import timm
import torch
from safetensors.torch import save

from irgen.checkpoints.hub import check_hub, fetch_weights
from irgen.checkpoints.weights import create_encoder
from irgen.errors import WeightsError
from irgen.params import Encoder

NAME = "test_vit"  # timm's own, of half a megabyte
CONFIG = Encoder(name=NAME, weights="hub", image_size=160, channels=3)
PATH = "/timm/test_vit.r160_in1k/resolve/main/model.safetensors"


class Hub(ThreadingHTTPServer):
    """A stand-in for the hub on loopback that has one file and counts what it is asked."""

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.content, self.asked = content, []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Answer(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, with_body: bool) -> None:
        self.server.asked.append((self.command, self.path))
        there = self.path == PATH
        content = self.server.content if there else b""
        self.send_response(200 if there else 404)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", '"0123456789abcdef"')
        self.send_header("X-Repo-Commit", "a" * 40)
        self.end_headers()
        if with_body:
            self.wfile.write(content)

    def log_message(self, *arguments) -> None:
        pass


@pytest.fixture
def model():
    torch.manual_seed(3)
    return timm.create_model(NAME)


@pytest.fixture
def empty_cache(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def hub(model, empty_cache, monkeypatch):
    server = Hub(save(model.state_dict()))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def no_hub(empty_cache, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")


def test_weights_are_fetched_once_and_then_found_without_the_hub(hub, model, monkeypatch):
    assert check_hub(NAME).endswith("MB to fetch")
    loaded = create_encoder(CONFIG, 0).backbone
    assert torch.equal(loaded.cls_token, model.cls_token)
    asked = len(hub.asked)
    assert "already on this machine" in check_hub(NAME)
    assert torch.equal(create_encoder(CONFIG, 1).backbone.cls_token, model.cls_token)
    assert len(hub.asked) == asked
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    create_encoder(CONFIG, 0)


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


def test_a_model_without_pretrained_weights_is_named(empty_cache):
    bare = set(timm.list_models()) - set(timm.list_models(pretrained=True))
    name = next(name for name in sorted(bare) if not timm.get_pretrained_cfg(name).has_weights)
    with pytest.raises(WeightsError, match=f"no pretrained weights of '{name}'"):
        create_encoder(replace(CONFIG, name=name), 0)
