"""Ray Train runs trainings on a cluster of this machine, as ``compute.engine: ray`` says."""

import os
import signal
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from irgen.checkpoints import tensor_file
from irgen.compute.workers import run_workers
from irgen.errors import ClusterError, IrgenWarning, NumberError, TrackingError
from irgen.params import Compute

from ..ray_cluster import start_cluster, this_module
from . import small_trainings
from .small_trainings import RETRIEVER, TOKENIZER, train

TWO = Compute(device="cpu", engine="ray", workers=2)


@pytest.fixture(scope="module")
def two_processors() -> Iterator[None]:
    """Start a cluster of two processors on this machine, to which the small trainings travel."""
    with start_cluster(2, small_trainings, this_module(__name__)):
        yield


def run_on_cluster(name: str, folder: Path, settings, work=train):
    """Return weights, history and what was logged."""
    rows = []
    arguments = [name, "batch", settings, str(folder), 0.0]
    run_workers(work, arguments, TWO, lambda row, step: rows.append((row, step)))
    tensors, history = tensor_file.load(folder / "model.safetensors")
    return tensors, history, rows


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tokenizer", "retriever"])
def test_a_training_on_a_cluster_ends_the_same_when_a_process_is_lost(
    name, two_processors, tmp_path
):
    settings = {"tokenizer": TOKENIZER, "retriever": RETRIEVER}[name]
    kept = {"tokenizer": "validation/accuracy/embedding", "retriever": "validation/precision/10"}
    whole, history, rows = run_on_cluster(name, tmp_path / "whole", settings)
    assert [row | {"step": step} for row, step in rows] == history
    train(name, "batch", settings, str(tmp_path / "alone"), 0.0, lambda row, step: None)
    alone = tensor_file.load(tmp_path / "alone" / "model.safetensors")[1]
    best = [max(row[kept[name]] for row in rounds) for rounds in (alone, history)]
    assert best[1] >= best[0] - 0.05

    def train_and_die_once(name, norm, settings, folder, seconds, log):
        def die(row, step):
            if step == 24 and not (Path(folder) / "died").exists():
                (Path(folder) / "died").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            log(row, step)

        return train(name, norm, settings, folder, seconds, die)

    with pytest.warns(IrgenWarning, match="the training on the cluster begins again"):
        again = run_on_cluster(name, tmp_path / "broken", settings, train_and_die_once)
    assert again[1] == history and again[2] == rows
    assert all(torch.equal(tensor, again[0][key]) for key, tensor in whole.items())


@pytest.mark.slow
def test_a_mistake_on_a_cluster_is_said_at_once(two_processors, tmp_path):
    settings = replace(TOKENIZER, learning_rate=10.0, weight_decay=1e6, temperature=0.001)
    with warnings.catch_warnings():
        warnings.simplefilter("error", IrgenWarning)  # it would begin again
        with pytest.raises(NumberError, match="the training diverges; lower tokenizer"):
            run_on_cluster("tokenizer", tmp_path, settings)
    many = replace(TWO, workers=99)
    with pytest.raises(ClusterError, match="99 processes, but the cluster has 2 processors"):
        run_workers(train, [], many, lambda row, step: None)


@pytest.mark.slow
def test_an_error_of_the_log_is_raised(two_processors):
    def work(log):
        log({"loss": 1.0}, 1)
        return {}

    def log(row, step):
        raise TrackingError("the tracking server is gone")

    with pytest.raises(TrackingError, match=r"^the tracking server is gone$"):
        run_workers(work, [], TWO, log)
