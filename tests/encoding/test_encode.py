import random
import shutil
import signal
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch

from irgen.catalog.images import pixels as images
from irgen.compute import Machine
from irgen.encoding import augment, encode
from irgen.encoding.encode import Encoding, encode_summaries, encode_views, fingerprint
from irgen.errors import NumberError
from irgen.models.encoder import ImageEncoder

from .conftest import CHANGES, encoder, hashes


def key_of(model: ImageEncoder, machine: Machine) -> str:
    return fingerprint([model], model.decoding, machine)


def test_what_is_no_number_is_never_stored(encoding):
    model = encoder()
    model.backbone.conv1[0].weight.data[0] = torch.nan
    with pytest.raises(NumberError, match=r"encoded images: .* not finite; set compute.precision"):
        encode_summaries(model, hashes(encoding), encoding)
    with pytest.raises(NumberError, match=r"encoded views: .* not finite; set compute.precision"):
        encode_views(model, hashes(encoding), CHANGES, 0, encoding)
    assert not list((encoding.cache / "encodings").rglob("*.safetensors"))


def test_an_image_is_encoded_once_in_its_life(encoding):
    model, image_hashes = encoder(), hashes(encoding)
    model.batches = 0
    first = encode_summaries(model, image_hashes[:10], encoding)
    assert model.batches == 2
    again = encode_summaries(model, image_hashes[:10], encoding)
    assert model.batches == 2
    assert np.array_equal(first, again)
    more = encode_summaries(model, image_hashes[:13], encoding)  # three new ones: one batch
    assert model.batches == 3
    assert np.array_equal(more[:10], first)


def test_a_summary_does_not_depend_on_what_else_is_encoded(encoding, tmp_path):
    image_hashes = hashes(encoding)
    whole = encode_summaries(encoder(), image_hashes, encoding)
    apart = Encoding(
        images=encoding.images,
        machine=encoding.machine,
        settings=encoding.settings,
        cache=tmp_path / "other",
    )
    for row in (20, 3, 11):
        assert np.array_equal(
            encode_summaries(encoder(), [image_hashes[row]], apart)[0], whole[row]
        )


def test_rows_follow_the_question_and_repeats_are_allowed(encoding):
    image_hashes = hashes(encoding)
    whole = encode_summaries(encoder(), image_hashes, encoding)
    asked = [image_hashes[5], image_hashes[2], image_hashes[5]]
    assert np.array_equal(encode_summaries(encoder(), asked, encoding), whole[[5, 2, 5]])
    assert encode_summaries(encoder(), [], encoding).shape == (0, 24)


def test_other_weights_or_another_precision_share_nothing(encoding):
    bf16 = Machine(device=torch.device("cpu"), autocast=torch.bfloat16)
    keys = {
        key_of(encoder(0), encoding.machine),
        key_of(encoder(1), encoding.machine),
        key_of(encoder(0), bf16),
    }
    assert len(keys) == 3
    assert key_of(encoder(0), encoding.machine) in keys


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
from irgen.encoding.encode import encode_views

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
    assert model.batches == 3 * CHANGES.views - batches
    assert [path.name[0] for path in (encoding.cache / "views").iterdir()] != ["."]
    shutil.rmtree(encoding.cache)
    whole = encode_views(model, image_hashes, CHANGES, 0, encoding)
    assert np.array_equal(views.summaries, whole.summaries)
    assert np.array_equal(views.tokens, whole.tokens)


def test_views_used_long_ago_are_deleted(encoding, monkeypatch):
    monkeypatch.setattr(encode, "KEPT_VIEWS", 2)
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


def test_a_new_version_of_the_code_encodes_anew(encoding, monkeypatch):
    model, image_hashes = encoder(), hashes(encoding)
    encode_summaries(model, image_hashes, encoding)
    encode_views(model, image_hashes, CHANGES, 0, encoding)
    model.batches = 0
    monkeypatch.setattr(augment, "VERSION", augment.VERSION + 1)
    encode_summaries(model, image_hashes, encoding)
    assert model.batches == 0  # summaries have no random changes
    encode_views(model, image_hashes, CHANGES, 0, encoding)
    assert model.batches == 3 * CHANGES.views
    monkeypatch.setattr(images, "VERSION", images.VERSION + 1)
    encode_summaries(model, image_hashes, encoding)
    assert model.batches == 3 * CHANGES.views + 3
