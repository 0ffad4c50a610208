"""Trainings of a second, in one process or several, and a program that runs them to be killed."""

import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from irgen.checkpoints import tensor_file
from irgen.checkpoints.resume import Resume
from irgen.compute.machine import prepare
from irgen.compute.workers import run_workers
from irgen.encoding.batches import LabelledImages, Pixels
from irgen.models.decoder import IdentifierDecoder, Shape
from irgen.models.retriever import QueryEncoder, Retriever
from irgen.models.tokenizer import Tokenizer
from irgen.params import Augment, Compute
from irgen.params import Retriever as RetrieverSettings
from irgen.params import Tokenizer as TokenizerSettings
from irgen.training import retriever as retrieving
from irgen.training import tokenizer as tokenizing
from irgen.training.run import TrainingRun

COUNT = 90
SHORT = {"steps": 32, "batch_size": 15, "validate_every": 8, "warmup": 0.1, "patience": 50}
TOKENIZER = TokenizerSettings(
    levels=2,
    codebook=8,
    width=8,
    tune_encoder=True,
    learning_rate=0.01,
    encoder_learning_rate=0.003,
    kmeans_iterations=5,
    clusters=3,
    **SHORT,
)
RETRIEVER = RetrieverSettings(
    tune_encoder=True,
    width=16,
    layers=1,
    heads=2,
    dropout=0.0,
    learning_rate=0.01,
    encoder_learning_rate=0.003,
    ema_decay=0.8,
    **SHORT,
)


class SmallEncoder(torch.nn.Module):
    """A convolution and ``norm``, for an ImageEncoder; one of its weights is never used."""

    def __init__(self, norm: str) -> None:
        super().__init__()
        self.layer = torch.nn.Conv2d(1, 12, 4, stride=4)
        self.norm = {"batch": torch.nn.BatchNorm2d, "layer": partial(torch.nn.GroupNorm, 1)}[norm](
            12
        )
        self.unused = torch.nn.Parameter(torch.zeros(3))

    def forward(self, pixels):
        grid = self.norm(self.layer(pixels / 255)).relu()
        return grid.mean((2, 3)), grid.flatten(2).transpose(1, 2)


def draw_images() -> tuple[Pixels, torch.Tensor]:
    """Return 90 pictures (N, 1, 8, 8) of 3 classes (N,)."""
    generator, labels = np.random.default_rng(0), np.arange(COUNT) % 3
    patterns = generator.integers(0, 200, (3, 1, 8, 8))[labels]
    pixels = (patterns + generator.integers(0, 56, patterns.shape)).astype(np.uint8)
    return Pixels(pixels, 8, Augment(rotate=5.0, shift=0.05)), torch.from_numpy(labels)


def train_tokenizer(norm: str, settings: TokenizerSettings, run: TrainingRun):
    """Return a tokenizer and its history. A third of the images validate it."""
    images, labels = draw_images()
    torch.manual_seed(0)
    model = Tokenizer(settings, 12, 3, SmallEncoder(norm))
    features = None
    if settings.labels == "clusters":
        features = torch.from_numpy(images.pixels.reshape(COUNT, -1)).float()[:, :12]
    held_out = replace(images, pixels=images.pixels[60:])
    validation = LabelledImages(held_out, labels[60:])
    training = LabelledImages(images, labels, features)
    return model, tokenizing.train(model, training, validation, settings, run)


def train_retriever(norm: str, settings: RetrieverSettings, run: TrainingRun):
    """Return a retriever and its history. Its codes are an image's class and its number."""
    images, labels = draw_images()
    torch.manual_seed(0)
    shape = Shape(summary_width=12, token_width=12, token_count=4, levels=2, codebook=8)
    model = Retriever(QueryEncoder(SmallEncoder(norm), None), IdentifierDecoder(settings, shape))
    codes = torch.stack([labels, torch.arange(COUNT) % 8], 1)
    pairs = retrieving.Pairs(
        images, codes, (torch.arange(COUNT) + 3) % COUNT, torch.arange(COUNT + 1)
    )
    validation = retrieving.Validation(LabelledImages(images, labels), labels)
    return model, retrieving.train(model, pairs, validation, settings, run)


TRAININGS = {"tokenizer": train_tokenizer, "retriever": train_retriever}


def train(name, norm, settings, folder, seconds, log) -> dict[str, float]:
    """Train, with so many ``seconds`` a round, and write the weights; for ``run_workers``."""

    def log_slowly(row, step):
        time.sleep(seconds)
        log(row, step)

    machine = prepare(Compute(device="cpu"))
    resume = Resume(Path(folder) / "state", name)
    run = TrainingRun(machine=machine, seed=0, log=log_slowly, resume=resume)
    model, history = TRAININGS[name](norm, settings, run)
    if machine.world.rank == 0:
        tensor_file.save(Path(folder) / "model.safetensors", model.state_dict(), history)
    return {}


def main() -> None:
    """Train in two processes: name and folder are arguments, and the seconds a round takes."""
    name, folder, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
    settings = {"tokenizer": TOKENIZER, "retriever": RETRIEVER}[name]
    arguments = [name, "batch", settings, folder, seconds]
    run_workers(train, arguments, Compute(device="cpu", workers=2), lambda row, step: None)


if __name__ == "__main__":
    main()
