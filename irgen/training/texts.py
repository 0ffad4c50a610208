"""Train the text encoder: a text is embedded where the images are that have it.

Sub-words start where the images are whose texts have them; then gradient steps tell texts apart.
"""

from collections import Counter
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim.lr_scheduler import OneCycleLR

from irgen.checkpoints.resume import History
from irgen.encoding.texts import ImageTexts
from irgen.models.text import PAD, TextEncoder, cut_word
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


def train_subwords(texts: Iterable[list[str]], most: int) -> list[str]:
    """Return the ``most`` sub-words that are in most texts, each given as its words."""
    counts: Counter[str] = Counter()
    for words in texts:
        counts.update({part for word in words for part in cut_word(word)})
    return sorted(counts, key=lambda part: (-counts[part], part))[:most]


@torch.no_grad()
def start_at_images(model: TextEncoder, texts: ImageTexts, embeddings: Tensor) -> None:
    """Set each sub-word's vector to where the images are whose texts have it: their mean embedding
    (N, D) relative to the mean of all, times the logarithm of how rare they are."""
    rows = torch.from_numpy(np.repeat(np.arange(len(texts.offsets) - 1), np.diff(texts.offsets)))
    numbers = torch.from_numpy(texts.numbers.copy())
    own = embeddings[rows].float()
    centre = own.mean(0)
    of_text = torch.zeros(len(texts.texts), own.shape[1]).index_add_(0, numbers, own)
    counts = numbers.bincount(minlength=len(of_text)).float()
    sums, totals = torch.zeros_like(model.table.weight), torch.zeros(len(model.table.weight))
    for text, words in enumerate(texts.split()):
        parts = model.number([words]).unique()
        sums[parts] += of_text[text]
        totals[parts] += counts[text]
    totals = totals.clamp_min(1)
    rarity = (len(rows) / totals).clamp_min(1).log()
    vectors = (sums / totals[:, None] - centre) * rarity[:, None]
    vectors[PAD] = 0
    model.table.weight.copy_(vectors)
    model.centre.copy_(centre)


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
    start_at_images(model, texts, embeddings)
    model.to(device).train()
    adam = torch.optim.Adam(model.parameters())
    rates = OneCycleLR(adam, settings.learning_rate, settings.steps)
    for steps in remaining_rounds(history, settings.steps, ROUND):
        means = RoundMeans("texts.learning_rate", steps)
        batches = draw_batches(steps, len(rows), settings.batch_size, run.seed)
        for step, batch in show_progress(batches, "texts", steps, settings.steps):
            images = rows[batch.numpy()]
            generator = np.random.default_rng([run.seed, step])
            wordings = [texts.draw(row, settings.dropout, generator) for row in images]
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
