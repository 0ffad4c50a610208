"""Images that are decoded when they are needed are those that were decoded beforehand."""

import dataclasses

import numpy as np
import pytest
import torch

from irgen.checkpoints.resume import Resume
from irgen.encoding.batches import LabelledImages, Pixels
from irgen.encoding.encode import decode_pixels
from irgen.encoding.lazy_pixels import AHEAD, LazyPixels
from irgen.encoding.training_images import load_training_images
from irgen.errors import ImageError
from irgen.models.decoder import IdentifierDecoder, Shape
from irgen.models.retriever import QueryEncoder, Retriever
from irgen.models.tokenizer import Tokenizer
from irgen.training import retriever as retrieving
from irgen.training import tokenizer as tokenizing
from irgen.training.run import TrainingRun

from .conftest import CHANGES, encoder, hashes

IMAGE = 32 * 32  # bytes of a decoded one
BUDGETS = [0, 5 * IMAGE, 10**9]  # none is kept, some are, all are


class KilledError(Exception):
    """Stands for a kill between two rounds."""


def open_lazily(encoding, memory: int) -> LazyPixels:
    images, sha256s, decoding = encoding.images, hashes(encoding), encoder().decoding
    return LazyPixels(images, sha256s, decoding, threads=2, memory=memory)


def count_reads(encoding, monkeypatch) -> list[str]:
    """Return a list to which the hash of each image that is read is added."""
    reads, read = [], encoding.images.read
    monkeypatch.setattr(encoding.images, "read", lambda sha: (reads.append(sha), read(sha))[1])
    return reads


@pytest.mark.parametrize("memory", BUDGETS)
def test_rows_are_those_of_the_array_whatever_is_kept(encoding, memory):
    whole, lazy = (
        decode_pixels(encoder(), hashes(encoding), encoding),
        open_lazily(encoding, memory),
    )
    generator = np.random.default_rng(0)
    for rows in (generator.integers(21, size=8) for _ in range(12)):  # rows repeat
        assert np.array_equal(lazy[rows], whole[rows])
    batches = [torch.from_numpy(generator.integers(21, size=8)) for _ in range(12)]
    for rows, expected in zip(lazy.prefetch(batches), batches, strict=True):
        assert torch.equal(rows, expected)
        assert np.array_equal(lazy[rows.numpy()], whole[rows.numpy()])
    assert len(lazy) == 21 and lazy[np.empty(0, np.int64)].shape == (0, 1, 32, 32)


def test_images_that_fit_in_memory_are_decoded_once_and_the_others_each_time(encoding, monkeypatch):
    reads = count_reads(encoding, monkeypatch)
    lazy = open_lazily(encoding, 15 * IMAGE)
    for _ in range(3):
        for rows in torch.arange(21).split(7):
            lazy[rows.numpy()]
    assert len(reads) == 15 + 3 * 6


def test_no_more_batches_are_decoded_ahead_than_it_says(encoding, monkeypatch):
    reads = count_reads(encoding, monkeypatch)
    lazy = open_lazily(encoding, 0)
    batches = lazy.prefetch(torch.arange(21).split(2))
    for number, rows in enumerate(batches, 1):
        lazy[rows.numpy()]
        assert len(reads) <= 2 * (number + AHEAD)
        if number == 3:
            break
    batches.close()
    assert not lazy._decoded


def test_an_image_that_does_not_decode_is_named(encoding, monkeypatch):
    monkeypatch.setattr(encoding.images, "read", lambda sha256: b"no")
    with pytest.raises(ImageError, match=f"image {hashes(encoding)[3]} does not decode"):
        open_lazily(encoding, 0)[np.array([3])]


def load(encoding, memory: int | None) -> Pixels:
    """Images decoded beforehand (``memory`` None), or lazily with so many bytes of them kept."""
    if memory is None:
        return Pixels(decode_pixels(encoder(), hashes(encoding), encoding), 32, CHANGES)
    settings = dataclasses.replace(encoding.settings, pixels_gigabytes=memory / 1e9)
    encoding = dataclasses.replace(encoding, settings=settings)
    model, sha256s = encoder(), hashes(encoding)
    images = load_training_images(model, sha256s, CHANGES, 0, encoding, tuned=True)
    assert isinstance(images, Pixels) and isinstance(images.pixels, LazyPixels)
    return images


def tune_tokenizer(encoding, settings, memory, run: TrainingRun):
    settings = dataclasses.replace(settings, tune_encoder=True, encoder_learning_rate=0.01)
    torch.manual_seed(0)
    model, labels = Tokenizer(settings, 24, 3, encoder()), torch.arange(21) % 3
    data = LabelledImages(load(encoding, memory), labels)
    return model, tokenizing.train(model, data, data, settings, run)


def tune_retriever(encoding, settings, memory, run: TrainingRun):
    settings = dataclasses.replace(settings, tune_encoder=True, encoder_learning_rate=0.01)
    torch.manual_seed(0)
    shape = Shape(summary_width=24, token_width=24, token_count=1, levels=2, codebook=8)
    model = Retriever(QueryEncoder(encoder(), None), IdentifierDecoder(settings, shape))
    labels, images = torch.arange(21) % 3, load(encoding, memory)
    codes = torch.stack([labels, torch.arange(21) % 8], 1)
    pairs = retrieving.Pairs(images, codes, (torch.arange(21) + 3) % 21, torch.arange(22))
    validation = retrieving.Validation(LabelledImages(images, labels), labels)
    return model, retrieving.train(model, pairs, validation, settings, run)


@pytest.fixture(params=[tune_tokenizer, tune_retriever])
def tune(request, encoding, tokenizer_settings, retriever_settings, tmp_path):
    """Return a function that trains in a folder of this name, lazily or not, and is killed after a
    step."""
    is_tokenizer = request.param is tune_tokenizer
    settings = tokenizer_settings if is_tokenizer else retriever_settings

    def run(folder: str, memory: int | None, killed_after: int | None = None):
        def log(row, step):
            if killed_after is not None and step > killed_after:
                raise KilledError

        resume = Resume(tmp_path / folder, "training")
        training = TrainingRun(machine=encoding.machine, seed=0, log=log, resume=resume)
        model, history = request.param(encoding, settings, memory, training)
        return model.state_dict(), history

    return run


def test_a_training_on_images_decoded_as_needed_ends_the_same_and_so_does_a_killed_one(tune):
    weights, history = tune("array", None)
    for memory in BUDGETS:
        runs = [tune(f"lazy-{memory}", memory)]
        with pytest.raises(KilledError):
            tune(f"killed-{memory}", memory, killed_after=12)
        runs.append(tune(f"killed-{memory}", memory))
        for other, rows in runs:
            assert rows == history
            assert all(torch.equal(tensor, other[name]) for name, tensor in weights.items())
