"""Nodes join a cluster, and the process that hands it the work is killed."""

import dataclasses
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest

from irgen.encoding.encode import encode_summaries

from ..ray_cluster import start_cluster, this_module
from . import conftest
from .conftest import Counting, encoder, hashes, on_cluster

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]
WAIT = 300.0  # seconds; a cluster on a busy machine


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
    model, image_hashes, clustered = encoder(), hashes(encoding), on_cluster(encoding)
    summaries = encode_summaries(model, image_hashes, encoding)
    model.__class__, model.folder = Gathering, tmp_path / "nodes"
    model.folder.mkdir()
    modules = (conftest, this_module(__name__))
    with start_cluster(1, *modules) as nodes, ThreadPoolExecutor(1) as pool:
        pending = pool.submit(encode_summaries, model, image_hashes, clustered)
        wait_until(lambda: pending.done() or any(model.folder.iterdir()))
        nodes.add_node(num_cpus=1)  # only the main thread can
        assert np.array_equal(pending.result(WAIT), summaries)
    assert len(list(model.folder.iterdir())) == 2


def wait_until(is_true: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT
    while not is_true():
        assert time.monotonic() < end
        time.sleep(0.1)


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
    other = dataclasses.replace(encoding, cache=tmp_path / "other")
    assert np.array_equal(summaries, encode_summaries(model, image_hashes, other))
    _, alive = psutil.wait_procs(children, timeout=WAIT)
    assert not alive
