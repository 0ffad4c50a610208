"""Queries in words teach the decoder beside the pictures; images without texts ask for nothing."""

import numpy as np
import polars as pl
import torch

from irgen.encoding.texts import ImageTexts
from irgen.models.decoder import IdentifierDecoder, Shape
from irgen.params import Retriever, Texts
from irgen.training.word_queries import WordQueries

from .. import tiny

SHAPE = Shape(summary_width=6, token_width=8, token_count=3, levels=2, codebook=4)
TABLE = pl.DataFrame({"id": ["a", "b"], "texts": [["red circle"], ["blue square"]]})


def ask(ids: list[str]) -> torch.Tensor:
    """Return the loss of a batch of the images ``ids``."""
    texts = ImageTexts.build(pl.Series(ids), TABLE)
    encoder, codes = tiny.text_encoder(["red circle", "blue square"], 6), torch.tensor([[1, 2]] * 2)
    torch.manual_seed(0)
    decoder = IdentifierDecoder(Retriever(width=8, layers=1, heads=2, dropout=0.0), SHAPE)
    words = WordQueries(encoder, texts, codes, Texts(share=1.0), 0.0)
    memory = torch.rand(2, 6), torch.rand(2, 3, 8)
    loss = words.mean_loss(decoder, memory, torch.arange(2), codes, np.random.default_rng(0))
    if loss.requires_grad:
        loss.backward()
        assert all(p.grad is not None for p in decoder.parameters())
        assert all(p.grad is None for p in encoder.parameters())
    return loss


def test_words_and_words_with_a_picture_teach_the_decoder_and_leave_the_encoder_as_it_is():
    assert ask(["a", "b"]) > 1


def test_images_without_texts_ask_for_nothing():
    assert ask(["x", "y"]) == 0
