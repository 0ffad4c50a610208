"""Train the text encoder: a text is embedded where the images are that have it."""

from collections.abc import Iterable

import numpy as np
import torch
from tokenizers import Tokenizer as Subwords
from tokenizers import models, pre_tokenizers, trainers
from torch import Tensor
from torch.nn import functional as F
from torch.optim.lr_scheduler import OneCycleLR

from irgen.checkpoints.resume import History
from irgen.compute.seeds import seed_everything
from irgen.encoding.texts import ImageTexts
from irgen.models.text import SPECIAL, TextEncoder
from irgen.params import Texts as Settings
from irgen.training.run import (
    RoundMeans,
    TrainingRun,
    draw_batches,
    remaining_rounds,
    show_progress,
)

VERSION = 1  # raise when a training gives another text encoder
ROUND = 100  # steps between two rows of the history
WEIGHT_DECAY = 0.05


def train_subwords(texts: Iterable[list[str]], size: int) -> Subwords:
    """Return a byte-pair encoding of at most ``size`` sub-words, learnt on texts, each given as its
    words. It encodes any other word too: bytes are sub-words."""
    subwords = Subwords(models.BPE())
    subwords.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False)
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    subwords.train_from_iterator(texts, trainer)
    return subwords


def train(
    model: TextEncoder,
    texts: ImageTexts,
    embeddings: Tensor,
    settings: Settings,
    run: TrainingRun,
) -> History:
    """Train ``model`` in place on the ``texts`` of images with these unit ``embeddings`` (N, D),
    which stay as they are. Return one row of metrics a round."""
    device, rows = run.machine.device, texts.rows
    history: History = []
    model.to(device).train()
    adam = torch.optim.AdamW(model.parameters(), weight_decay=WEIGHT_DECAY)
    rates = OneCycleLR(adam, settings.learning_rate, settings.steps)
    for steps in remaining_rounds(history, settings.steps, ROUND):
        seed_everything(run.seed, steps.start)  # dropout
        means = RoundMeans("texts.learning_rate", steps)
        batches = draw_batches(steps, len(rows), settings.batch_size, run.seed)
        for step, batch in show_progress(batches, "texts", steps, settings.steps):
            images = rows[batch.numpy()]
            generator = np.random.default_rng([run.seed, step])
            wordings = [texts.draw(row, settings.dropped_words, generator) for row in images]
            fitting = torch.from_numpy(texts.mark_fitting(wordings, images)).to(device)
            numbers = model.number([wording.words for wording in wordings]).to(device)
            own = embeddings[images].to(device)
            value = contrastive_loss(model(numbers)[0], own, fitting, settings.temperature)
            adam.zero_grad()
            value.backward()
            adam.step()
            rates.step()
            means.add({"loss": value}, len(images))
        history.append({"step": steps.stop, **means.row()})
        run.log(means.row(), steps.stop)
    model.eval()
    return history


def contrastive_loss(texts: Tensor, images: Tensor, fitting: Tensor, temperature: float) -> Tensor:
    """Return the symmetric InfoNCE loss of unit embeddings of Q texts and B images. All images that
    are ``fitting`` (Q, B) bool count the same; a text fits at least one image, and an image to at
    least one text."""
    logits = texts @ images.T / temperature  # (Q, B)
    wanted = fitting.float()
    by_text = F.cross_entropy(logits, wanted / wanted.sum(1, keepdim=True))
    by_image = F.cross_entropy(logits.T, wanted.T / wanted.T.sum(1, keepdim=True))
    return (by_text + by_image) / 2
