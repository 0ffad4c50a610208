"""A text is embedded where its images are; the encoder learns from any words, none are too new."""

import numpy as np
import polars as pl
import torch
from torch.nn import functional as F

from irgen.compute.machine import Machine
from irgen.encoding.texts import ImageTexts
from irgen.models.text import TextEncoder, split_words
from irgen.params import Texts
from irgen.training.run import TrainingRun
from irgen.training.texts import contrastive_loss, train, train_subwords

KINDS = ["red circle", "blue circle", "red square", "blue square"]
SETTINGS = Texts(steps=60, batch_size=32)


def test_the_most_frequent_sub_words_are_kept():
    assert train_subwords([["red"], ["red", "rod"], ["red"]], 2) == ["<re", "<red"]


def test_the_loss_is_least_where_texts_lie_on_the_images_that_fit():
    images = F.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]]), dim=1)
    fitting = torch.tensor([[True, True, False], [True, True, False], [False, False, True]])
    right, wrong = images, images.flip(0)
    assert contrastive_loss(right, images, fitting, 0.1) < contrastive_loss(
        wrong, images, fitting, 0.1
    )


def test_a_trained_encoder_finds_the_images_of_a_text_and_of_a_new_wording():
    generator = torch.Generator().manual_seed(0)
    centres = F.normalize(torch.randn(4, 16, generator=generator), dim=1)
    kinds = torch.arange(80) % 4
    images = F.normalize(centres[kinds] + 0.1 * torch.randn(80, 16, generator=generator), dim=1)
    ids = pl.Series([f"{n:03}" for n in range(80)])
    table = pl.DataFrame({"id": ids, "texts": [[f"a {KINDS[k]}", "drawing"] for k in kinds]})
    texts = ImageTexts.build(ids, table)

    def build() -> TextEncoder:
        torch.manual_seed(0)
        run = TrainingRun(
            machine=Machine(device=torch.device("cpu"), autocast=None),
            seed=0,
            log=lambda row, step: None,
        )
        words = {word for text in texts.split() for word in text}
        subwords = train_subwords(texts.split(), SETTINGS.subwords)
        model = TextEncoder(SETTINGS, subwords, words, 16)
        train(model, texts, images, SETTINGS, run)
        return model

    model = build()
    queries = [*KINDS, "circle, blue", "the square that is red"]
    with torch.inference_mode():
        embeddings, _ = model(model.number([split_words(text) for text in queries]))
    nearest = (embeddings @ images.T).argmax(1)
    assert kinds[nearest].tolist() == [0, 1, 2, 3, 1, 2]
    again = build()
    for before, after in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(before, after)
    assert np.isfinite(embeddings.numpy()).all()
