"""An index of small pictures with captions, and a text encoder trained on these."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import torch

from irgen.catalog.images.pixels import decode_images
from irgen.checkpoints.models import Models
from irgen.compute.machine import Machine
from irgen.encoding.texts import ImageTexts
from irgen.training import texts as training
from irgen.training.run import TrainingRun

from . import tiny

CAPTIONS = ["round red apple", "long green cucumber", "ripe yellow banana", "blue striped shirt"]
EACH = 6  # pictures of a caption
NAMES = [f"{text.split()[-1]}/{number}.png" for text in CAPTIONS for number in range(EACH)]
TITLES = [text for text in CAPTIONS for _ in range(EACH)]
STEPS = 150


def pictures() -> list[bytes]:
    """Return the pictures, in the order of NAMES."""
    return [tiny.picture(label, n) for label in range(len(CAPTIONS)) for n in range(EACH)]


def items() -> pl.DataFrame:
    """Return id and metadata of the pictures."""
    return pl.DataFrame(
        {
            "id": NAMES,
            "path": NAMES,
            "label": [name.split("/")[0] for name in NAMES],
            "sha256": [hashlib.sha256(content).hexdigest() for content in pictures()],
            "title": TITLES,
            "price": range(len(NAMES)),
        }
    )


def teach_words(models: Models) -> Models:
    """Return the models with a text encoder that was trained on the captions for a second."""
    embeddings = models.embed(torch.from_numpy(decode_images(pictures(), models.decoding)))
    table = pl.DataFrame({"id": NAMES, "texts": [[title] for title in TITLES]})
    texts = ImageTexts.build(pl.Series("id", NAMES), table)
    encoder = tiny.text_encoder(CAPTIONS, embeddings.shape[1])
    settings = replace(encoder.settings, steps=STEPS, batch_size=len(NAMES), learning_rate=0.02)
    run = TrainingRun(
        machine=Machine(device=torch.device("cpu"), autocast=None), seed=0, log=lambda *_: None
    )
    training.train(encoder, texts, embeddings, settings, run)
    return replace(models, text_encoder=encoder.eval())


def write_pictures(root: Path, names: Sequence[str] = NAMES) -> None:
    """Write the pictures below ``root``, as the index names them."""
    for name, content in zip(names, pictures(), strict=True):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)


def label_of(name: str) -> str:
    """Return the label of one of NAMES."""
    return name.split("/")[0]


def labels_of(ids: np.ndarray) -> set[str]:
    """Return the labels of images that were found."""
    return {label_of(name) for name in ids if name is not None}
