"""Encoding on a Ray cluster gives what encoding here gives, whatever happens to its workers."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from irgen.catalog.shards import Images
from irgen.encoding.encode import Encoding, encode_summaries
from irgen.encoding.views import encode_views
from irgen.errors import ImageError, NumberError

from ..ray_cluster import start_cluster, this_module
from . import conftest
from .conftest import CHANGES, Counting, encoder, hashes

pytestmark = pytest.mark.slow
WAIT = 300.0  # seconds; a cluster on a busy machine


@pytest.fixture(scope="module")
def two_workers() -> Iterator[Any]:
    with start_cluster(2, conftest, this_module(__name__)) as nodes:
        yield nodes


def on_cluster(encoding: Encoding) -> Encoding:
    """Return the encoding of the same images on the cluster, with a cache of its own."""
    settings = dataclasses.replace(encoding.settings, engine="ray")
    cache = encoding.cache.with_name("cluster-cache")
    return dataclasses.replace(encoding, settings=settings, cache=cache)


def test_features_and_views_are_those_of_this_machine_to_the_last_bit(encoding, two_workers):
    model, image_hashes, there = encoder(), hashes(encoding), on_cluster(encoding)
    summaries = encode_summaries(model, image_hashes, there)
    assert np.array_equal(summaries, encode_summaries(model, image_hashes, encoding))
    here, views = (encode_views(model, image_hashes, CHANGES, 0, e) for e in (encoding, there))
    assert np.array_equal(views.summaries, here.summaries)
    assert np.array_equal(views.tokens, here.tokens)


def die_once(flag: Path) -> None:
    """Kill this process if it is the first to take the flag away."""
    with suppress(FileNotFoundError):
        flag.unlink()
        os.kill(os.getpid(), signal.SIGKILL)


class DyingEncoder(Counting):
    flag: Path

    def forward(self, pixels):
        die_once(self.flag)
        return super().forward(pixels)


class DyingImages(Images):
    flag: Path

    def read(self, sha256: str) -> bytes:
        die_once(self.flag)
        return super().read(sha256)


def test_a_killed_decoder_and_a_killed_encoder_change_nothing(encoding, two_workers, tmp_path):
    model, image_hashes, there = encoder(), hashes(encoding), on_cluster(encoding)
    summaries = encode_summaries(model, image_hashes, encoding)
    model.__class__, model.flag = DyingEncoder, tmp_path / "encoder"
    images = Images(encoding.images.folder)
    images.__class__, images.flag = DyingImages, tmp_path / "decoder"
    for flag in (model.flag, images.flag):
        flag.touch()
    there = dataclasses.replace(there, images=images)
    assert np.array_equal(encode_summaries(model, image_hashes, there), summaries)
    assert not model.flag.exists() and not images.flag.exists()


class BrokenImages(Images):
    broken: str

    def read(self, sha256: str) -> bytes:
        return b"no image" if sha256 == self.broken else super().read(sha256)


def test_errors_of_workers_are_those_of_this_machine(encoding, two_workers):
    model, image_hashes, there = encoder(), hashes(encoding), on_cluster(encoding)
    images = Images(encoding.images.folder)
    images.__class__, images.broken = BrokenImages, image_hashes[11]
    broken = dataclasses.replace(there, images=images)
    with pytest.raises(ImageError, match=f"^image {image_hashes[11]} does not decode: ") as error:
        encode_summaries(model, image_hashes, broken)
    assert error.type is ImageError
    model.backbone.conv1[0].weight.data[0] = np.nan
    with pytest.raises(NumberError, match=r"^encoded views: .* not finite; set compute.precision"):
        encode_views(model, image_hashes, CHANGES, 0, there)


class Gathering(Counting):
    """Wait in each batch until encoders on two nodes have begun one."""

    folder: Path

    def forward(self, pixels):
        import ray

        (self.folder / ray.get_runtime_context().get_node_id()).touch()
        end = time.monotonic() + WAIT
        while len(list(self.folder.iterdir())) < 2:
            assert time.monotonic() < end, "no second node is used"
            time.sleep(0.1)
        return super().forward(pixels)


def test_a_node_that_joins_is_used(encoding, tmp_path):
    model, image_hashes, there = encoder(), hashes(encoding), on_cluster(encoding)
    summaries = encode_summaries(model, image_hashes, encoding)
    model.__class__, model.folder = Gathering, tmp_path / "nodes"
    model.folder.mkdir()
    with start_cluster(1, conftest, this_module(__name__)) as nodes:
        joining = add_node_when_work_has_begun(nodes, model.folder)
        assert np.array_equal(encode_summaries(model, image_hashes, there), summaries)
        joining.join(WAIT)
    assert len(list(model.folder.iterdir())) == 2


def add_node_when_work_has_begun(nodes: Any, folder: Path) -> Any:
    from threading import Thread

    def add() -> None:
        end = time.monotonic() + WAIT
        while not list(folder.iterdir()) and time.monotonic() < end:
            time.sleep(0.1)
        nodes.add_node(num_cpus=1)

    thread = Thread(target=add)
    thread.start()
    return thread


KILLED = """
import dataclasses, os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import conftest as tests
from irgen.compute import cluster
from irgen.encoding import encode
from irgen.encoding.cache import ArrayStore

class KillingStore(ArrayStore):
    def add(self, sha256s, values):
        super().add(sha256s, values)
        os.kill(os.getpid(), signal.SIGKILL)

cluster.import_ray().cloudpickle.register_pickle_by_value(tests)
encode.SHARD, encode.ArrayStore = 1, KillingStore
encoding = tests.open_encoding(Path(sys.argv[2]))
settings = dataclasses.replace(encoding.settings, engine="ray")
encoding = dataclasses.replace(encoding, settings=settings)
encode.encode_summaries(tests.encoder(), tests.hashes(encoding), encoding)
"""


def test_after_a_kill_of_the_driver_nothing_is_encoded_again_and_no_cluster_is_left(
    encoding, tmp_path, root
):
    command = [sys.executable, "-c", KILLED, str(root / "tests" / "encoding"), str(tmp_path)]
    driver = subprocess.Popen(command, cwd=root, stderr=subprocess.PIPE, text=True)
    children: set[psutil.Process] = set()
    end = time.monotonic() + WAIT
    while driver.poll() is None:
        assert time.monotonic() < end
        with suppress(psutil.NoSuchProcess):
            children |= set(psutil.Process(driver.pid).children(recursive=True))
        time.sleep(0.2)
    assert driver.returncode == -signal.SIGKILL, driver.communicate()[1]
    model, image_hashes = encoder(), hashes(encoding)
    model.batches = 0
    summaries = encode_summaries(model, image_hashes, encoding)
    assert model.batches == 2  # of three
    whole = encode_summaries(model, image_hashes, on_other_cache(encoding))
    assert np.array_equal(summaries, whole)
    _, alive = psutil.wait_procs(children, timeout=60)
    assert not alive


def on_other_cache(encoding: Encoding) -> Encoding:
    return dataclasses.replace(encoding, cache=encoding.cache.with_name("other"))
