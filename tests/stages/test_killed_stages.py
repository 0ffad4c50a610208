"""A stage that is killed again and again, whenever it may be, ends as an unbroken one."""

import multiprocessing
import os
import random
import shutil
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import yaml

from irgen.encoding.cache import map_shard

from .conftest import files

KILLS = 20
BATCH = 10  # so that there are many moments between two batches
CONNECTIONS = 2  # that fetch
IMAGES = 300  # of the project
TAR_BLOCKS = 2  # of an image in a shard: its header, and its 200 bytes or so


def set_params(folder: Path, section: str, **values: object) -> None:
    tree = yaml.safe_load((folder / "params.yaml").read_text())
    tree[section] |= values
    (folder / "params.yaml").write_text(yaml.safe_dump(tree))


@pytest.fixture
def start(copy, monkeypatch):
    """Return a function that starts a stage in another process, forked after torch is loaded."""
    folder, _ = copy
    set_params(folder, "compute", batch_size=BATCH)
    monkeypatch.syspath_prepend(Path(__file__).parent)
    helper = import_module("killed_stage")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["killed_stage", *helper.MODULES, "timm.data"])

    def run(stage: str) -> multiprocessing.Process:
        arguments = (stage, str(folder), str(folder / "n"), dict(os.environ))
        process = context.Process(target=helper.run, args=arguments)
        process.start()
        return process

    return run


def kill_at_random(
    start: Callable, stage: str, folder: Path, count: Callable[[], int]
) -> list[tuple[int, int]]:
    """Run a stage unbroken, then kill it at KILLS random moments of its life, from the beginning
    whenever it ended, and compare the outcomes. ``count`` returns the work done so far. Return the
    work of each outcome and the kills on its way, the unbroken one first."""
    output, cache = folder / "data" / stage, folder / ".cache"
    draw = random.Random(0)

    def forget() -> int:
        for path in (output, cache):
            shutil.rmtree(path, ignore_errors=True)
        return count()

    for _ in range(2):  # the first one waits for the modules
        before = forget()
        begun = time.monotonic()
        process = start(stage)
        process.join(300)
        assert process.exitcode == 0
        seconds = time.monotonic() - begun
    whole, outcomes, kills, pieces = files(output), [(count() - before, 0)], 0, 0
    before = forget()
    while kills < KILLS or pieces:
        process = start(stage)
        process.join(draw.uniform(0, seconds) if kills < KILLS else 300)
        if process.is_alive():
            process.kill()
            process.join()
            kills, pieces = kills + 1, pieces + 1
            continue
        assert process.exitcode == 0, f"after {kills} kills"
        assert files(output) == whole, f"after {kills} kills"
        outcomes.append((count() - before, pieces))
        pieces = 0
        if kills < KILLS:
            before = forget()
    return outcomes


def count_batches(folder: Path) -> int:
    """Return how many batches have passed through an encoder so far."""
    return (folder / "n").stat().st_size if (folder / "n").exists() else 0


@pytest.mark.slow
def test_a_download_killed_at_random_is_the_same_and_fetches_no_complete_shard_again(
    copy, start, buckets
):
    folder, _ = copy
    photos = folder / "digits"
    contents = {f"photos/{name}": content for name, content in files(photos).items()}
    assert len(contents) == IMAGES
    buckets.fill("shop", contents)
    source = {"source": "s3://shop/photos", "endpoint": buckets.uri, "connections": CONNECTIONS}
    set_params(folder, "download", **source)
    outcomes = kill_at_random(start, "download", folder, lambda: buckets.count("GET", "/photos/"))
    assert outcomes[0] == (IMAGES, 0)
    in_a_shard = import_module("killed_stage").SHARD_BYTES // (TAR_BLOCKS * 512)
    lost = in_a_shard + 3 * CONNECTIONS + 1  # the shard under way, and what is read ahead
    assert all(fetched <= IMAGES + kills * lost for fetched, kills in outcomes)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["features", "identifiers"])
def test_a_stage_killed_at_random_is_the_same_and_no_image_is_stored_twice(copy, start, stage):
    folder, _ = copy
    outcomes = kill_at_random(start, stage, folder, lambda: count_batches(folder))
    batches, _ = outcomes[0]
    assert batches >= IMAGES // BATCH
    # a kill costs no more than the batch under way
    assert all(encoded <= batches + kills for encoded, kills in outcomes)
    shards = (folder / ".cache" / "encodings").rglob("*.safetensors")
    keys = np.concatenate([map_shard(path).keys for path in shards])
    assert len(keys) == len(np.unique(keys, axis=0)) == IMAGES


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["tokenizer", "retriever"])
def test_a_training_killed_at_random_ends_the_same(copy, start, stage):
    folder, _ = copy
    kill_at_random(start, stage, folder, lambda: count_batches(folder))
    assert not list((folder / ".cache" / "training").glob("*/state.safetensors"))
