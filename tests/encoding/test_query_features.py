"""What is read once is what would be read anew, and is not read again by the same models."""

import dataclasses

import pytest
import torch

from irgen.catalog import manifest
from irgen.checkpoints.models import Models
from irgen.checkpoints.retriever import initial_query_encoder
from irgen.checkpoints.weights import create_encoder
from irgen.encoding.encode import Encoding, decode_pixels
from irgen.encoding.query_features import encode_queries, select_queries
from irgen.models.decoder import IdentifierDecoder, Shape
from irgen.models.retriever import Retriever
from irgen.models.tokenizer import Tokenizer

from .. import tiny
from .conftest import open_encoding, pack_pictures

CPU = torch.device("cpu")
ENCODER = dataclasses.replace(tiny.ENCODER, crop=0.875)
PARTS = ("summary", "tokens", "embedding")


@pytest.fixture
def encoding(tmp_path) -> Encoding:
    """Eleven grey pictures in batches of four."""
    pack_pictures(tmp_path, count=11, side=40)
    return open_encoding(tmp_path, batch_size=4)


@pytest.fixture
def make(tokenizer_settings, retriever_settings):
    """Models whose retriever reads by the pretrained encoder or by the tokenizer's."""

    def build(source: str, seed: int = 0) -> Models:
        pretrained = create_encoder(ENCODER, seed=0)
        torch.manual_seed(seed)
        tokenizer = Tokenizer(tokenizer_settings, pretrained.width, 3, None)
        settings = dataclasses.replace(retriever_settings, encoder=source, tune_encoder=False)
        shape = Shape(
            summary_width=pretrained.width if source == "pretrained" else tokenizer_settings.width,
            token_width=pretrained.token_width,
            token_count=pretrained.token_count,
            levels=3,
            codebook=8,
        )
        retriever = Retriever(
            initial_query_encoder(pretrained, tokenizer, source), IdentifierDecoder(settings, shape)
        )
        models = Models(
            tokenizer=tokenizer, retriever=retriever, pretrained=pretrained, labels=["a", "b", "c"]
        )
        return models.to(CPU)

    return build


@pytest.fixture
def read(monkeypatch) -> list[int]:
    """Return the list of sizes of the batches that models encode from now on."""
    seen: list[int] = []
    original = Models.encode

    def counted(self, images):
        seen.append(len(images))
        return original(self, images)

    monkeypatch.setattr(Models, "encode", counted)
    return seen


def hashes(encoding: Encoding) -> list[str]:
    return sorted(manifest.read(encoding.cache.parent / "download")["sha256"])


@pytest.mark.parametrize("source", ["pretrained", "tokenizer"])
def test_what_is_kept_is_what_the_models_read(make, encoding, source):
    models, asked = make(source), hashes(encoding)
    anew = models.encode(
        torch.from_numpy(decode_pixels(models.query_encoder.encoder, asked, encoding))
    )
    for _ in range(2):  # made, then kept
        features = encode_queries(models, asked, encoding)
        for part in PARTS:
            assert getattr(features, part).shape == getattr(anew, part).shape
            assert torch.allclose(getattr(features, part), getattr(anew, part), atol=1e-5)


def test_an_image_is_read_once_by_the_same_models_in_full_batches(make, encoding, read):
    models, asked = make("tokenizer"), hashes(encoding)
    encode_queries(models, asked[:5], encoding)
    assert read == [4, 4]
    encode_queries(models, asked, encoding)
    assert read == [4] * 4  # six more
    encode_queries(make("tokenizer"), asked, encoding)  # equal weights in other objects
    assert read == [4] * 4
    encode_queries(make("tokenizer", seed=1), asked, encoding)
    assert len(read) == 7


def test_what_is_read_does_not_depend_on_what_is_kept(make, encoding):
    models, asked = make("tokenizer"), hashes(encoding)
    alone = encode_queries(models, asked[7:8], encoding)
    again = encode_queries(models, [asked[7], *asked, asked[7]], encoding)
    for part in PARTS:
        assert torch.equal(getattr(again, part)[8], getattr(alone, part)[0])
        assert torch.equal(getattr(again, part)[-1], getattr(alone, part)[0])


@pytest.mark.parametrize("source", ["pretrained", "tokenizer"])
def test_no_image_reads_as_nothing_of_the_right_shape(make, encoding, source):
    models = make(source)
    nothing, one = (encode_queries(models, hashes(encoding)[:n], encoding) for n in (0, 1))
    for part in PARTS:
        assert getattr(nothing, part).shape == (0, *getattr(one, part).shape[1:])


def test_rows_are_taken_of_every_part(make, encoding):
    features = encode_queries(make("tokenizer"), hashes(encoding), encoding)
    some = select_queries(features, torch.tensor([3, 3, 1]), CPU)
    for part in PARTS:
        assert torch.equal(getattr(some, part), getattr(features, part)[[3, 3, 1]])
