"""Views are cached within a budget of disk; what is not cached is encoded to the same result."""

import dataclasses
import random
import shutil
import signal
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch

from irgen.encoding import views
from irgen.encoding.batches import LabelledImages
from irgen.encoding.encode import encode_summaries
from irgen.encoding.views import encode_views
from irgen.errors import RoomError
from irgen.models.decoder import IdentifierDecoder, Shape
from irgen.models.retriever import Retriever
from irgen.training import retriever as retrieving
from irgen.training.run import TrainingRun

from .conftest import CHANGES, encoder, hashes

ALL = dataclasses.replace(CHANGES, shear=4.0, flip=True, colour=0.2, erase=0.5)
IMAGE = 3 * 24 * (4 + 2)  # bytes of three views of an image


def test_the_first_view_is_plain_the_others_are_changed_and_all_are_cached(encoding):
    model, image_hashes = encoder(), hashes(encoding)
    seen = encode_views(model, image_hashes, CHANGES, 0, encoding)
    assert seen.summaries.shape == (21, 3, 24)
    assert seen.tokens.shape == (21, 3, 1, 24)
    np.testing.assert_allclose(
        seen.summaries[:, 0], encode_summaries(model, image_hashes, encoding), atol=1e-6
    )
    assert not np.allclose(seen.summaries[:, 0], seen.summaries[:, 1], atol=1e-3)
    batches = model.batches
    again = encode_views(model, image_hashes, CHANGES, 0, encoding)
    assert model.batches == batches
    assert np.array_equal(seen.tokens, again.tokens)
    other = encode_views(model, image_hashes, CHANGES, 1, encoding)
    assert not np.array_equal(other.summaries[:, 1], seen.summaries[:, 1])


def test_a_flipped_bit_among_views_is_noticed_and_they_are_made_again(encoding):
    model, image_hashes, draw = encoder(), hashes(encoding), random.Random(0)
    whole = encode_views(model, image_hashes, CHANGES, 0, encoding)
    summaries, tokens = np.array(whole.summaries), np.array(whole.tokens)
    (folder,) = (encoding.cache / "views").iterdir()
    for _ in range(12):
        path = folder / draw.choice(["summaries.npy", "tokens.npy", "sums.npy"])
        content = bytearray(path.read_bytes())
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(content)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            views = encode_views(model, image_hashes, CHANGES, 0, encoding)
        assert np.array_equal(views.summaries, summaries)
        assert np.array_equal(views.tokens, tokens)


def test_views_of_no_images_are_empty(encoding):
    assert encode_views(encoder(), [], CHANGES, 0, encoding).summaries.shape == (0, 3, 24)


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import conftest as tests
from irgen.encoding.views import encode_views

class Killing(tests.Counting):
    def forward(self, pixels):
        if self.batches == int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(pixels)

tests.torch.set_num_threads(int(sys.argv[4]))  # sums are then rounded as in the test
encoding, model = tests.open_encoding(Path(sys.argv[2])), tests.encoder()
model.__class__ = Killing
model.batches = 0
encode_views(model, tests.hashes(encoding), tests.CHANGES, 0, encoding)
"""


@pytest.mark.slow
def test_views_that_were_encoded_before_a_kill_are_not_encoded_again(encoding, tmp_path, root):
    batches = 4  # all of the first view and one of the second
    command = [sys.executable, "-c", KILLED, str(root / "tests" / "encoding"), str(tmp_path)]
    command += [str(batches), str(torch.get_num_threads())]
    done = subprocess.run(command, cwd=root, stderr=subprocess.PIPE, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    model, image_hashes = encoder(), hashes(encoding)
    model.batches = 0
    views = encode_views(model, image_hashes, CHANGES, 0, encoding)
    rest = 3 * CHANGES.views - batches
    assert rest <= model.batches <= rest + 1  # the last one may not have reached the disk
    assert [path.name[0] for path in (encoding.cache / "views").iterdir()] != ["."]
    shutil.rmtree(encoding.cache)
    whole = encode_views(model, image_hashes, CHANGES, 0, encoding)
    assert np.array_equal(views.summaries, whole.summaries)
    assert np.array_equal(views.tokens, whole.tokens)


def test_views_used_long_ago_are_deleted(encoding, monkeypatch):
    monkeypatch.setattr(views, "KEPT_VIEWS", 2)
    model, image_hashes = encoder(), hashes(encoding)[:3]
    one, two, three = ([*image_hashes, sha256] for sha256 in hashes(encoding)[3:6])
    for sha256s in (one, two, one, three):
        encode_views(model, sha256s, CHANGES, 0, encoding)
    model.batches = 0
    for sha256s in (one, three):
        encode_views(model, sha256s, CHANGES, 0, encoding)
    assert model.batches == 0
    encode_views(model, two, CHANGES, 0, encoding)
    assert model.batches == CHANGES.views
    assert len(list((encoding.cache / "views").iterdir())) == 2


def limit(encoding, size: int):
    """Return ``encoding`` with ``size`` bytes for all sets of views, and with another cache."""
    settings = dataclasses.replace(encoding.settings, views_gigabytes=size / 1e9)
    cache = encoding.cache.with_name(f"cache-{size}")
    return dataclasses.replace(encoding, settings=settings, cache=cache)


@pytest.mark.parametrize("cached", [0, 8, 16])
@pytest.mark.parametrize("changes", [CHANGES, ALL], ids=["few", "all"])
def test_views_beyond_the_budget_are_encoded_when_they_are_drawn_to_the_last_bit(
    encoding, cached, changes, capsys
):
    model, image_hashes = encoder(), hashes(encoding)
    whole = encode_views(model, image_hashes, changes, 0, encoding)
    assert "tokens cached" not in capsys.readouterr().out
    room = 21 * 3 * 24 * 4 + cached * 3 * 24 * 2 + 5
    some = encode_views(model, image_hashes, changes, 0, limit(encoding, 2 * room))
    assert some.tokens.shape == (cached, 3, 1, 24) and whole.tokens.shape == (21, 3, 1, 24)
    assert f"views: {cached} of 21 images have their tokens cached" in capsys.readouterr().out
    assert np.array_equal(some.summaries, whole.summaries)
    draws = [torch.Generator().manual_seed(1) for _ in range(2)]
    batches = [*torch.arange(60).view(6, 10) * 7 % 21, torch.arange(21)]
    for rows in some.prefetch(batches):
        for left, right in zip(
            some.training(rows, draws[0]), whole.training(rows, draws[1]), strict=True
        ):
            assert torch.equal(left, right)
        for left, right in zip(some.plain(rows), whole.plain(rows), strict=True):
            assert torch.equal(left, right)


def test_a_retriever_is_the_same_whatever_is_cached(encoding, retriever_settings):
    labels, weights = torch.arange(21) % 3, []
    codes = torch.stack([labels, torch.arange(21) % 8], 1)
    shape = Shape(summary_width=24, token_width=24, token_count=1, levels=2, codebook=8)
    settings = dataclasses.replace(retriever_settings, dropout=0.1)  # it draws random numbers, too
    for cache in (encoding, limit(encoding, 2 * 21 * 3 * 24 * 4)):
        images = encode_views(encoder(), hashes(encoding), CHANGES, 0, cache)
        torch.manual_seed(0)
        model = Retriever(None, IdentifierDecoder(settings, shape))
        pairs = retrieving.Pairs(images, codes, (torch.arange(21) + 3) % 21, torch.arange(22))
        validation = retrieving.Validation(LabelledImages(images, labels), labels)
        run = TrainingRun(machine=encoding.machine, seed=0, log=lambda row, step: None)
        history = retrieving.train(model, pairs, validation, settings, run)
        weights.append((model.state_dict(), history))
    (first, rows), (second, others) = weights
    assert rows == others
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_a_disk_without_room_is_told_before_anything_is_encoded(encoding, monkeypatch):
    usage = shutil.disk_usage(encoding.cache.parent)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    model, image_hashes = encoder(), hashes(encoding)
    model.batches = 0
    told = (
        r"no space left on the disk for 3 views of 21 images: 6.05e-06 GB are needed, and 1e-06 GB"
    )
    with pytest.raises(RoomError, match=told):
        encode_views(model, image_hashes, CHANGES, 0, encoding)
    assert model.batches == 0


def test_the_disk_decides_where_it_has_less_than_the_budget(encoding, monkeypatch):
    usage = shutil.disk_usage(encoding.cache.parent)._replace(free=30 * IMAGE)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    some = encode_views(encoder(), hashes(encoding), CHANGES, 0, encoding)
    assert len(some.tokens) == 0
    monkeypatch.undo()
    again = encode_views(encoder(), hashes(encoding), CHANGES, 0, encoding)
    assert len(again.tokens) == 0  # what is there is used


def test_old_sets_and_halves_are_deleted_for_new_ones_within_the_budget(encoding):
    image_hashes, small = hashes(encoding)[:8], limit(encoding, 3 * (8 * IMAGE + 1000))
    folder = small.cache / "views"
    for seed in range(5):
        encode_views(encoder(), image_hashes, CHANGES, seed, small)
        assert sum(map(views.measure_size, folder.iterdir())) <= 3 * (8 * IMAGE + 1000)
    assert len(list(folder.iterdir())) == 3
    half, *_ = folder.iterdir()
    half.rename(half.with_name(".killed.part"))
    for seed in range(3):
        encode_views(encoder(), image_hashes, CHANGES, 10 + seed, small)
    assert not list(folder.glob(".*"))
