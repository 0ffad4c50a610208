"""A stage that is killed again and again, whenever it may be, ends as an unbroken one."""

import multiprocessing
import random
import shutil
import time
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import yaml

from irgen.encoding.cache import map_shard

from .conftest import files

KILLS = 20
BATCH = 4  # so that there are many moments between two batches


@pytest.fixture
def start(copy, monkeypatch):
    """A function that starts a stage in a process of its own, forked where torch is loaded."""
    folder, _ = copy
    tree = yaml.safe_load((folder / "params.yaml").read_text())
    tree["compute"]["batch_size"] = BATCH
    (folder / "params.yaml").write_text(yaml.safe_dump(tree))
    monkeypatch.syspath_prepend(Path(__file__).parent)
    helper = import_module("killed_stage")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["killed_stage", *helper.MODULES, "timm.data"])

    def run(stage: str) -> multiprocessing.Process:
        process = context.Process(target=helper.run, args=(stage, str(folder), str(folder / "n")))
        process.start()
        return process

    return run


def kill_at_random(start, stage: str, folder: Path) -> tuple[int, int]:
    """Run a stage unbroken, then kill it at KILLS random moments of its life, from the beginning
    whenever it ended, and compare the outcomes. Return the batches of an unbroken run, and the
    most batches of one in pieces, less one for each kill."""
    output, cache, counter = folder / "data" / stage, folder / ".cache", folder / "n"
    draw = random.Random(0)

    def forget() -> None:
        for path in (output, cache):
            shutil.rmtree(path, ignore_errors=True)
        counter.unlink(missing_ok=True)

    def count() -> int:
        return counter.stat().st_size

    for _ in range(2):  # the first one waits for the modules
        forget()
        begun = time.monotonic()
        process = start(stage)
        process.join(300)
        assert process.exitcode == 0
        seconds = time.monotonic() - begun
    whole, batches, most, kills, pieces = files(output), count(), 0, 0, 0
    forget()
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
        most, pieces = max(most, count() - pieces), 0
        if kills < KILLS:
            forget()
    return batches, most


@pytest.mark.slow
def test_features_killed_at_random_are_the_same_and_no_image_is_stored_twice(copy, start):
    folder, _ = copy
    batches, most = kill_at_random(start, "features", folder)
    assert most <= batches  # a kill costs no more than the batch under way
    shards = (folder / ".cache" / "encodings").rglob("*.safetensors")
    keys = np.concatenate([map_shard(path).keys for path in shards])
    assert len(keys) == len(np.unique(keys, axis=0)) == 300


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["tokenizer", "retriever"])
def test_a_training_killed_at_random_ends_the_same(copy, start, stage):
    folder, _ = copy
    kill_at_random(start, stage, folder)
    assert not list((folder / ".cache" / "training").glob("*/state.safetensors"))
