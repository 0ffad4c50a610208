"""Texts become embeddings and a decoder's memory; unknown words are named."""

import torch

from irgen.models.decoder import Shape
from irgen.models.text import MOST_WORDS, PAD, compose, shape_memory

from .. import tiny

TEXTS = ["red circle", "blue square", "green apple"]


def test_a_text_is_read_the_same_alone_and_beside_a_longer_one():
    model = tiny.text_encoder(TEXTS, embedding_width=6)
    both = model.number([["red"], ["a", "large", "green", "apple"]])
    alone = model.number([["red"]])
    assert both.shape[1:] != alone.shape[1:] and both[0, 1:].eq(PAD).all()
    torch.testing.assert_close(model(both)[0][:1], model(alone)[0])
    torch.testing.assert_close(model(both)[1][:1, :1], model(alone)[1])
    assert not model(both)[1][0, 1:].any()


def test_a_text_without_words_and_a_very_long_one_are_read():
    model = tiny.text_encoder(TEXTS, embedding_width=6)
    numbers = model.number([[], ["apple"] * 500])
    assert numbers.shape[:2] == (2, MOST_WORDS) and numbers[0].eq(PAD).all()
    embeddings, _ = model(numbers)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(2))
    assert len(model(model.number([]))[0]) == 0


def test_words_that_no_text_has_are_named_once_without_capitals_and_accents():
    model = tiny.text_encoder(TEXTS, embedding_width=6)
    assert model.unknown_words("Réd XYZZY, green xyzzy plum?") == ["xyzzy", "plum"]
    assert model.unknown_words("Apple!") == [] == model.unknown_words("")


def test_the_memory_has_the_shape_of_a_pictures():
    shape = Shape(summary_width=8, token_width=3, token_count=4, levels=1, codebook=2)
    embeddings, states = torch.rand(2, 6), torch.rand(2, 5, 4)
    summary, tokens = shape_memory(embeddings, states, shape)
    assert summary.shape == (2, 8) and tokens.shape == (2, 4, 3)
    assert torch.equal(summary[:, :6], embeddings) and not summary[:, 6:].any()
    assert torch.equal(tokens[:, 1:], states[:, 1:4, :3])
    assert torch.equal(tokens[:, 0], states[:, 0, :3] + states[:, 4, :3])
    few = shape_memory(embeddings, states[:, :2], shape)[1]
    assert torch.equal(few[:, :2], states[:, :2, :3]) and not few[:, 2:].any()


def test_a_picture_with_no_words_is_the_picture_to_a_norm():
    picture = torch.randn(3, 7)
    norm = torch.nn.LayerNorm(7, eps=0)
    torch.testing.assert_close(
        norm(compose(picture, torch.zeros(3, 7))), norm(picture), atol=1e-5, rtol=1e-5
    )
